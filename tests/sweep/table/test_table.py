"""Reports of a sweep: conclusion and tables in four formats."""

import csv
import io
import json
import re
import sys
from itertools import combinations

import numpy as np
import pytest
from omegaconf import OmegaConf

from gald import cli
from gald.config import compose
from gald.sweep.cells import Sweep
from gald.sweep.claim import claimed
from gald.sweep.state import read_record, write_record
from gald.sweep.table import figures
from gald.sweep.table.arms import Arm, find_baseline
from gald.sweep.table.table import print_table


def ld_helps(ga, ld, seed):
    """LD helps, GA does not; seeds differ a little."""
    return 0.7 + 0.002 * seed + (0.06 if ld == "mask" else 0)


def rows(text):
    return {row["arm"]: row for row in csv.DictReader(io.StringIO(text))}


def test_true_effect_is_better_and_noise_is_noise(toy_sweep, capsys):
    folder = toy_sweep(ld_helps)
    print_table(folder, samples=1000, form="csv")
    table = rows(capsys.readouterr().out)
    assert {arm: row["conclusion"] for arm, row in table.items()} == {
        "ga=none ld=none": "baseline",
        "ga=none ld=mask": "better",
        "ga=psp ld=none": "noise",
        "ga=psp ld=mask": "better",
    }
    row = table["ga=none ld=mask"]
    assert int(row["degrees_of_freedom"]) == 6
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert row["seeds"] == "0 1 2" and row["model/ld"] == "mask" and float(row["mIoU sd"]) > 0
    assert float(row["params (M)"]) == pytest.approx(1.000001) and float(row["GMACs"]) == 2
    print_table(folder, samples=1000)
    shown = capsys.readouterr().out
    assert re.match(r"2 of 3 arms differ from ga=none ld=none by more than noise; the", shown)
    assert "Main effects" in shown and "ga=psp : ld=mask" in shown


def test_boundaries_have_their_own_differences_and_intervals(toy_sweep, capsys):
    analysis = print_table(toy_sweep(ld_helps), samples=300, form="csv")
    table = rows(capsys.readouterr().out)
    title = "boundary F (3 px)"
    (column,) = analysis.other_scores  # the other metrics have scores, but no per-image counts
    assert column.title == title and column.higher_is_better
    row = table["ga=none ld=mask"]
    assert float(row[f"{title} difference"]) == pytest.approx(3)
    assert float(row[f"{title} low"]) < 3 < float(row[f"{title} high"])
    assert table["ga=none ld=none"][f"{title} difference"] == ""
    results = analysis.other_scores[column]
    assert {result.contrast.name: result.conclusion for result in results} == {
        "ga=none ld=mask": "better",
        "ga=psp ld=none": "noise",
        "ga=psp ld=mask": "better",
        "ga=psp": "noise",
        "ld=mask": "better",
        "ga=psp given ld!=none": "noise",
        "ld=mask given ga!=none": "better",
    }
    print_table(toy_sweep(ld_helps, name="again"), samples=300, form="md")
    text = capsys.readouterr().out
    section = text[text.index("Boundaries and small things") :]
    assert re.search(r"\| ld=mask \| \+3\.00 \(\+2\.\d+ to \+3\.\d+\)\* \|", section)


def test_main_effects_of_a_single_factor_are_not_repeated(toy_sweep, capsys):
    print_table(toy_sweep(ld_helps, ga=("none",)), samples=200, form="md")
    text = capsys.readouterr().out
    section = re.search(r"## Boundaries and small things\n(.*?)\n## ", text, re.DOTALL)[1]
    assert section.count("| ld=mask |") == 1 and "main effects," not in section
    assert "corrected for 1 comparison (Holm)" in text


def test_numbers_are_the_mean_and_deviation_of_the_runs(toy_sweep, capsys):
    folder = toy_sweep(ld_helps)
    print_table(folder, samples=200, form="csv")
    row = rows(capsys.readouterr().out)["ga=none ld=none"]
    runs = [json.loads((folder / f"cell_{i}" / "results.json").read_text()) for i in range(3)]
    scores = [100 * run["val/miou"] for run in runs]
    mean = sum(scores) / 3
    deviation = (sum((score - mean) ** 2 for score in scores) / 2) ** 0.5
    assert [float(row["mIoU"]), float(row["mIoU sd"])] == pytest.approx([mean, deviation])
    assert float(row["boundary F (3 px)"]) == pytest.approx(35.1)
    assert float(row["boundary IoU (2% wide)"]) == pytest.approx(23.4)
    assert float(row["small objects (bin up to 0.1%)"]) == pytest.approx(17.55)


def test_equal_arms_are_inside_the_noise(toy_sweep, capsys):
    analysis = print_table(toy_sweep(), samples=1000)
    shown = capsys.readouterr().out
    assert shown.startswith("Inside the noise: none of 3 arms differs significantly from")
    assert not any(result.clear for result in analysis.differences)


@pytest.mark.parametrize(
    ("gain", "relation"), [(0.08, "larger than the noise"), (0.0, "inside the noise")]
)
def test_two_arms_are_compared_in_one_sentence(toy_sweep, capsys, gain, relation):
    folder = toy_sweep(lambda ga, ld, seed: 0.7 + gain * (ga == "psp"), ld=("none",))
    print_table(folder, samples=500)
    sentence = f"The mIoU difference of ga=psp from ga=none is {relation}: "
    assert capsys.readouterr().out.startswith(sentence)


def test_folder_holds_all_formats_and_their_figures(toy_sweep, tmp_path):
    to = tmp_path / "report"
    print_table(toy_sweep(ld_helps), to, samples=500)
    images = {"arms.png", "pareto.png", "classes.png", "along_size_recall.png"}
    texts = {"report.md", "report.html", "table.tex", "table.csv", "runs.csv", "contrasts.csv"}
    assert {path.name for path in to.iterdir()} == images | texts
    assert all((to / name).read_bytes().startswith(b"\x89PNG") for name in images)
    page = (to / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    assert "pole &amp; sign" in page
    runs = list(csv.DictReader(io.StringIO((to / "runs.csv").read_text())))
    assert [(row["arm"], row["seed"]) for row in runs[:4]] == [
        *(("ga=none ld=none", seed) for seed in "012"),
        ("ga=none ld=mask", "0"),
    ]
    assert len(runs) == 12 and {row["ground_truth_sha256"] for row in runs} == {"2e"}
    results = json.loads((tmp_path / "toy" / "cell_3" / "results.json").read_text())
    assert float(runs[3]["mIoU"]) == pytest.approx(100 * results["val/miou"])
    latex = (to / "table.tex").read_text()
    assert r"\toprule" in latex and r"$\pm$" in latex and "mIoU \\%" in latex
    widths = {line.count(" & ") for line in latex.splitlines() if line.endswith(r" \\")}
    assert len(widths) == 1
    with pytest.raises(ValueError, match="already holds something"):
        print_table(toy_sweep(name="other"), to)


def test_labels_of_similar_arms_do_not_overlap(monkeypatch):
    monkeypatch.setattr(figures, "to_png", lambda figure: figure)
    points = [figures.Point(f"ga=psp ld={i}", 0.36 + 0.0001 * i, 45.1, 1.0) for i in range(4)]
    figure = figures.pareto_chart({"GMACs": points, "latency (ms)": points})
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert len(boxes) == 4
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_missing_cells_are_listed_with_their_reasons(toy_sweep, capsys):
    folder = toy_sweep(
        ld_helps,
        unfinished={
            ("psp", "none", 1): ("failed", "out of memory with micro-batch size 1"),
            ("psp", "mask", 0): ("failed", "crashed"),
            ("psp", "mask", 1): ("pending", None),
            ("psp", "mask", 2): ("pending", None),
        },
    )
    (folder / "cell_0" / "images_val.npz").write_bytes(b"cut")
    with claimed(folder / "cell_11"):
        print_table(folder, samples=500, form="md")
    text = capsys.readouterr().out
    assert "5 cells are missing, see below" in text
    assert "| ga=psp ld=none | 1 | failed | out of memory with micro-batch size 1 |" in text
    assert "| ga=psp ld=mask | 2 | running |" in text
    assert "unreadable" in text and "cannot be read as image counts" in text
    assert re.search(r"\| ga=psp ld=mask \| 0 \|.*\| no result \|", text)
    assert "| ga=psp ld=none | 2 |" in text and "set of seeds differs" in text
    print_table(folder, samples=500, form="csv")
    row = rows(capsys.readouterr().out)["ga=psp ld=mask"]
    assert row["conclusion"] == "no result" and "seed 0: failed crashed" in row["missing"]


def test_cell_with_counts_of_no_number_of_classes_is_listed_as_unreadable(toy_sweep, capsys):
    folder = toy_sweep(ld_helps)
    path = folder / "cell_11" / "images_val.npz"
    arrays = dict(np.load(path))
    arrays["confusion.places"][arrays["confusion.places"] == 8] = 9  # past its 3 classes
    np.savez(path, **arrays | {"confusion.width": np.array(10)})
    print_table(folder, samples=200, form="md")
    assert "| ga=psp ld=mask | 2 | unreadable |" in capsys.readouterr().out


def test_seeds_that_are_missing_for_one_reason_share_a_row(toy_sweep, capsys):
    unfinished = {("psp", "mask", seed): ("pending", None) for seed in (0, 2)}
    print_table(toy_sweep(ld_helps, unfinished=unfinished), samples=500, form="md")
    assert "| ga=psp ld=mask | 0, 2 | pending |" in capsys.readouterr().out


def test_an_arm_that_has_not_started_is_listed_as_missing_alone(toy_sweep, capsys):
    unfinished = {("psp", "mask", seed): ("pending", None) for seed in range(3)}
    print_table(toy_sweep(ld_helps, unfinished=unfinished), samples=500, form="md")
    assert [line for line in capsys.readouterr().out.splitlines() if "ga=psp ld=mask" in line] == [
        "| ga=psp ld=mask | 0, 1, 2 | pending |  |"
    ]


def test_one_seed_never_shows_an_effect(toy_sweep, capsys):
    analysis = print_table(toy_sweep(ld_helps, seeds=(0,)), samples=500)
    assert "No arm was trained with two seeds" in capsys.readouterr().out
    assert {result.conclusion for result in analysis.differences} == {"seeds unknown"}


def test_runs_with_a_different_evaluation_are_listed_as_missing(toy_sweep, capsys):
    folder = toy_sweep()
    path = folder / "cell_11" / "results.json"
    results = json.loads(path.read_text())
    results["val/receipt"]["ground_truth_sha256"] = "3d"
    path.write_text(json.dumps(results))
    print_table(folder, samples=200, form="md")
    text = capsys.readouterr().out
    assert "| ga=psp ld=mask | 2 | unreadable |" in text and "ground_truth_sha256 = 2e" in text


def test_a_last_word_that_two_keys_share_names_no_baseline():
    factors = {"optimizer.lr": ["1", "2"], "scheduler.lr": ["1", "2"]}
    arms = [Arm({"optimizer.lr": a, "scheduler.lr": b}, f"{a} {b}") for a in "12" for b in "12"]
    assert find_baseline(arms, factors, "optimizer.lr=2 scheduler.lr=1") == 2
    with pytest.raises(ValueError, match="0 arms match --baseline 'lr=1'"):
        find_baseline(arms, factors, "lr=1")


def test_baseline_is_named_by_keys_or_their_last_words(toy_sweep, capsys):
    folder = toy_sweep(ld_helps)
    print_table(folder, baseline="model/ga=psp model/ld=mask", samples=200, form="csv")
    assert rows(capsys.readouterr().out)["ga=psp ld=mask"]["conclusion"] == "baseline"
    print_table(folder, baseline="ga=psp ld=none", samples=200, form="csv")
    assert rows(capsys.readouterr().out)["ga=psp ld=none"]["conclusion"] == "baseline"
    with pytest.raises(
        ValueError, match="2 arms match --baseline 'ga=psp'; choose one of 'model/ga"
    ):
        print_table(folder, baseline="ga=psp")


def test_command_reports_errors_in_one_sentence(toy_sweep, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gald", "table", *map(str, arguments)])
        cli.main()

    for arguments, sentence in (
        ((tmp_path,), "holds no sweep"),
        ((tmp_path, "--samples", 5), "--samples is 5"),
        ((toy_sweep(), "--split", "test"), "none of the 12 cells in"),
    ):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert sentence in capsys.readouterr().err


def test_reduced_micro_batches_are_noted(toy_sweep, capsys):
    folder = toy_sweep()
    first = folder / Sweep.load(folder).cells[0].folder
    record = read_record(first)
    record.micro_batch_size = 4
    write_record(first, record)
    print_table(folder, samples=200, form="md")
    assert "ga=none ld=none, seed 0: micro-batch size 4 instead" in capsys.readouterr().out


def test_measured_latency_and_memory_become_columns(toy_sweep, capsys):
    def config(content, ga, ld, seed):
        words = ["model.channels=8", "model.backbone.name=test_resnet", f"model/ga={ga}"]
        size = ["data.size=[32,48]", "data.train_transform.crop_size=[32,48]"]
        cfg = compose("train", [*words, *size, "output_dir=x", "trainer.accelerator=cpu"])
        content.update(OmegaConf.to_container(cfg, resolve=True))

    folder = toy_sweep(ld_helps, ld=("none",), seeds=(0, 1), config=config)
    print_table(folder, samples=200, form="csv", measuring=True)
    for row in rows(capsys.readouterr().out).values():
        assert float(row["latency (ms)"]) > 0 and 0.1 < float(row["memory (MiB)"]) < 100


@pytest.mark.parametrize("size", [512, "512", [32], [32, 4.5]], ids=str)
def test_measuring_a_config_with_a_crop_of_no_two_sides_is_refused(toy_sweep, size):
    def config(content, ga, ld, seed):
        words = ["model.channels=8", "model.backbone.name=test_resnet", "data.size=[32,48]"]
        cfg = compose("train", [*words, "output_dir=x", "trainer.accelerator=cpu"])
        content.update(OmegaConf.to_container(cfg, resolve=True))
        content["data"]["train_transform"]["crop_size"] = size

    folder = toy_sweep(ld_helps, ga=("none",), seeds=(0, 1), config=config)
    with pytest.raises(ValueError, match=r"config\.yaml .*crop_size.*; "):
        print_table(folder, samples=200, measuring=True)


def test_measuring_an_untrusted_config_calls_no_code(toy_sweep):
    def config(content, ga, ld, seed):
        content["data"] = {"_target_": "os.system", "command": "false"}

    with pytest.raises(ValueError, match=r"would call os\.system"):
        print_table(toy_sweep(config=config), samples=200, measuring=True)
