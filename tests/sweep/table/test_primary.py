"""The primary contrast: its words, when it is fixed, and how a table marks it."""

import csv
import io
import json
import re

import numpy as np
import pytest
import torch

from gald.metrics.boundary_f import BoundaryF
from gald.metrics.images import ImageCounts
from gald.sweep.cells import Sweep, declare
from gald.sweep.table.arms import Arm, label
from gald.sweep.table.primary import read_primary
from gald.sweep.table.table import print_table

FACTORS = {"model/ga": ["none", "psp", "cgnl"], "model/ld": ["none", "mask", "const"]}
SCORES = ["mIoU", "boundary F", "thin classes"]
ARMS = [
    Arm(values, label(values))
    for values in (
        {"model/ga": g, "model/ld": d} for g in FACTORS["model/ga"] for d in FACTORS["model/ld"]
    )
]


def weights(text):
    primary = read_primary(text, FACTORS, SCORES)
    contrast = primary.contrast(ARMS)
    return {
        arm.label: round(w, 6) for arm, w in zip(ARMS, contrast.weights, strict=True) if w
    }, primary


def test_words_become_weights_of_arms():
    found, primary = weights("ld=mask given ga != none on boundary F")
    assert primary.score == "boundary F" and primary.margin is None
    assert found == {
        "ga=psp ld=none": -0.5,
        "ga=psp ld=mask": 0.5,
        "ga=cgnl ld=none": -0.5,
        "ga=cgnl ld=mask": 0.5,
    }
    found, primary = weights("ld=mask vs const given ga = psp on Thin Classes within 0.5")
    assert found == {"ga=psp ld=const": -1, "ga=psp ld=mask": 1}
    assert (primary.score, primary.margin) == ("thin classes", 0.5)
    found, primary = weights("model/ld given ga!=none and ga!=cgnl")
    assert found == {"ga=psp ld=none": -1, "ga=psp ld=mask": 0.5, "ga=psp ld=const": 0.5}
    assert primary.score == "mIoU"
    found, _ = weights("ga=psp")
    assert sorted(found.values()) == [-0.333333] * 3 + [0.333333] * 3


def test_a_level_is_compared_with_none_wherever_it_is_listed():
    primary = read_primary("ld=mask", {"model/ld": ["mask", "const", "none"]})
    assert primary.against == "none"
    assert read_primary("ld=mask", {"model/ld": ["const", "mask"]}).against == "const"
    assert read_primary("ld", {"model/ld": ["mask", "none"]}).levels == ("mask",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lr=0.1", "'lr' is no factor; name one of them .model/ga, model/ld., or go on without it"),
        ("ld=maks", "model/ld has no value 'maks'; its values are none, mask, const"),
        ("ld=mask vs maks", "model/ld has no value 'maks'"),
        ("ld=none", "compares model/ld=none with itself"),
        ("ld=mask given ga ! none", "'ga ! none' is no condition; write FACTOR = LEVEL or"),
        ("ld=mask given head=x", "'head' is no factor"),
        ("ld=mask given ga != pps", "model/ga has no value 'pps'; its values are none, psp, cgnl"),
        ("ld=mask given ld != none", "with a condition on model/ld, the factor itself"),
        ("ld=mask on sharpness", "no score 'sharpness'; choose one of mIoU, boundary F, thin"),
        ("ld=mask within 0", "where 0 is no margin; write a number of points above 0"),
        ("ld=mask within -1", "where -1 is no margin; write a number of points above 0"),
        ("ld=mask within much", "where much is no margin; write a number of points above 0"),
        ("", "is no contrast; write FACTOR=LEVEL"),
        ("does ld help?", "is no contrast; write FACTOR=LEVEL"),
        ("ld=mask given " + "x " * 999, "is no contrast; write FACTOR=LEVEL"),
    ],
)
def test_words_that_name_nothing_are_refused_with_those_that_do(text, sentence):
    with pytest.raises(ValueError, match=r"hydra\.sweeper\.primary is") as raised:
        read_primary(text, FACTORS, SCORES)
    assert re.search(sentence, str(raised.value))


def test_primary_contrast_is_checked_before_anything_trains(gald_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "-m", "model/ga=none,psp", "model/ld=none,mask", "seed=0,1", "name=x"]
    words += ["model.backbone.name=test_resnet"]
    for text, sentence in (
        ("ld=mask on sharpness", "no score 'sharpness'; choose one of mIoU, boundary IoU, bound"),
        ("ld=mask given ga != none and ga != psp", "but no two of the 4 arms differ in model/ld"),
    ):
        with pytest.raises(ValueError, match=sentence):
            gald_cli(*words, f"hydra.sweeper.primary='{text}'")
        assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").rglob("config.yaml"))


@pytest.mark.integration
def test_primary_contrast_is_fixed_with_the_first_cell(gald_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "plan", "model/ld=none,mask", "seed=0,1", "--to", "grid"]
    gald_cli(*words, "hydra.sweeper.primary='ld=mask on mIoU'")
    assert Sweep.load(tmp_path / "grid").primary == "ld=mask on mIoU"
    with pytest.raises(ValueError, match=r"primary contrast 'ld=mask on mIoU', but .* has none"):
        gald_cli(*words)
    with pytest.raises(ValueError, match="but this command has 'ld=mask on thin classes'"):
        gald_cli(*words, "hydra.sweeper.primary='ld=mask on thin classes'")
    old = declare(tmp_path / "old", "old", [], [["model/ld=mask", "seed=0"]])
    with pytest.raises(ValueError, match=r"contrast none, but .*primary=null"):
        declare(tmp_path / "old", "old", [], [old[0].overrides], "ld=mask")


@pytest.mark.integration
def test_a_part_of_a_declared_sweep_and_one_more_arm_keep_its_primary_contrast(gald_cli, tmp_path):
    grid, words = tmp_path / "grid", ["sweep", "plan", "--to", str(tmp_path / "grid")]
    words.append("hydra.sweeper.primary='ld=mask vs const given ga=psp on mIoU'")
    arm = ["model/ga=none", "model/ld=none", "seed=0,1"]
    with pytest.raises(ValueError, match="'ld' is no factor"):
        gald_cli(*words, *arm)
    gald_cli(*words, "model/ga=psp,cgnl", "model/ld=none,mask,const", "seed=0,1")
    gald_cli(*words, *arm)
    gald_cli(*words, "model/ga=psp", "model/ld=none,mask", "seed=0,1")
    assert len(Sweep.load(grid).cells) == 14


@pytest.mark.integration
def test_the_first_command_may_run_a_part_of_what_a_file_declares(gald_cli, tmp_path, capsys):
    words = ["sweep", "plan", "experiment=confirm_camvid", "model/ga=none"]
    gald_cli(*words, "model/ld=none", "--to", str(tmp_path / "grid"))
    gald_cli(*words, "model/ld=none", "--no-probe")
    assert "on boundary F: these cells alone do not answer it" in capsys.readouterr().out
    gald_cli(*words[:3], "seed=3", "--to", str(tmp_path / "grid"))
    cells = Sweep.load(tmp_path / "grid").cells
    assert len(cells) == 10 + 8
    other = "hydra.sweeper.primary='ld=affinity given ga=psp on mIoU'"
    more = [*words[:3], "--to", str(tmp_path / "other"), other]
    with pytest.raises(ValueError, match="with none, but affinity with mask as long as") as raised:
        gald_cli(*more, "model/ld=mask,affinity")
    remedy = str(raised.value).rpartition(": ")[2]
    assert sorted(remedy.rpartition("=")[2].split(",")) == ["affinity", "const", "mask", "none"]
    gald_cli(*more, remedy)


def test_table_of_a_part_without_the_arms_of_the_contrast_has_no_answer(toy_sweep, capsys):
    folder = toy_sweep(primary="ld=const vs guided on boundary F")
    print_table(folder, samples=200)
    shown = capsys.readouterr().out
    assert shown.startswith("Primary contrast, ld=const vs guided on boundary F: no answer, ")
    assert "No primary contrast was declared" not in shown


def with_ga_only(ga, ld, seed):
    """LD helps where there is a GA, and harms where there is none."""
    return 0.7 + 0.003 * seed + (0.04 if ga != "none" else -0.04) * (ld == "mask")


PRIMARY = "ld=mask given ga != none on boundary F within 0.5"


@pytest.mark.integration
def test_table_answers_the_primary_contrast_and_marks_the_rest(toy_sweep, tmp_path, capsys):
    folder = toy_sweep(with_ga_only, ga=("none", "psp", "cc"), primary=PRIMARY)
    to = tmp_path / "report"
    found = print_table(folder, to, samples=400)
    shown = capsys.readouterr().out
    assert shown.startswith(f"Primary contrast, {PRIMARY}: better, +2.00 points (95% interval ")
    assert "Not shown to be equivalent within 0.5 points (two one-sided" in shown
    assert (
        "Exploratory: " in shown
        and "The primary contrast is tested at 5%." in (to / "report.md").read_text()
    )
    assert found.answer.p == pytest.approx(float(found.answer.estimate.p))  # not corrected
    rows = list(csv.DictReader(io.StringIO((to / "contrasts.csv").read_text())))
    assert [row["role"] for row in rows[:2]] == ["primary", "exploratory"]
    assert sum(row["role"] == "primary" for row in rows) == 1
    assert rows[0]["score"] == "boundary F" and float(rows[0]["difference"]) == pytest.approx(2)
    text = (to / "report.md").read_text()
    assert text.count("Exploratory: corrected for all tests of the report") >= 5


def test_more_of_a_score_of_which_less_is_better_is_worse(toy_sweep, monkeypatch):
    monkeypatch.setattr(BoundaryF, "higher_is_better", False)
    folder = toy_sweep(lambda ga, ld, seed: 0.7 + 0.04 * (ld == "mask"), primary="ld on boundary F")
    found = print_table(folder, samples=200)
    assert found.answer.estimate.difference > 0 and found.answer.conclusion == "worse"
    assert all(one.p >= one.estimate.p for one in found.differences)  # explored, and corrected


def test_effect_given_a_ga_is_beside_the_main_effect_that_hides_it(toy_sweep, capsys):
    found = print_table(toy_sweep(with_ga_only, seeds=(0, 1, 2)), samples=400)
    main = {one.contrast.name: one for one in found.main_effects}
    given = {one.contrast.name: one for one in found.given}
    assert main["ld=mask"].conclusion == "noise"
    assert given["ld=mask given ga!=none"].conclusion == "better"
    assert given["ld=mask given ga!=none"].degrees_of_freedom == 6  # of all runs, paired
    assert "Given a level" in capsys.readouterr().out
    assert "No primary contrast was declared, so every finding is exploratory." in (
        print_table(toy_sweep(name="again"), samples=200) and capsys.readouterr().out
    )


@pytest.mark.integration
def test_answer_says_what_is_missing(toy_sweep, capsys):
    cells = {("cc", "mask", seed): ("failed", "x") for seed in (0, 1, 2)}
    folder = toy_sweep(with_ga_only, ga=("none", "psp", "cc"), primary=PRIMARY, unfinished=cells)
    print_table(folder, samples=200)
    assert "It has 1 of 2 settings; the others lack runs" in capsys.readouterr().out
    cells |= {("psp", "mask", seed): ("pending", None) for seed in (0, 1, 2)}
    name = {"name": "fewer", "unfinished": cells, "primary": PRIMARY}
    print_table(toy_sweep(with_ga_only, ga=("none", "psp", "cc"), **name), samples=200)
    assert "no answer, because no setting has all its runs" in capsys.readouterr().out
    folder = toy_sweep(name="thin", primary="ld=mask on thin classes")
    print_table(folder, samples=200)
    assert "have no counts of thin classes for every image" in capsys.readouterr().out


def test_one_seed_answers_no_primary_contrast(toy_sweep, capsys):
    print_table(toy_sweep(with_ga_only, seeds=(0,), primary="ld=mask on mIoU"), samples=200)
    shown = capsys.readouterr().out
    assert shown.startswith("Primary contrast, ld=mask on mIoU: seeds unknown, ")
    assert re.search(r" points \(95% interval \S+ to \S+, of the images only\)\. What", shown)


@pytest.mark.parametrize(
    ("images", "answer"),
    [(1, r"too few images, \S+ points, without an interval"), (0, "absent, because no image")],
)
def test_a_score_of_fewer_than_two_images_has_no_interval(toy_sweep, capsys, images, answer):
    folder = toy_sweep(with_ga_only, primary="ld=mask vs none on boundary F within 1")
    for path in folder.glob("cell_*/images_val.npz"):
        stored, counts = ImageCounts.load(path), ImageCounts()
        for place, name in enumerate(stored.names):
            for metric in ("confusion", "boundary_f"):
                kept = metric == "confusion" or place < images
                counts.add(name, metric, torch.from_numpy(stored.dense(metric)[place] * kept))
        counts.save(path)
    print_table(folder, samples=200)
    shown = capsys.readouterr().out.splitlines()[0]
    assert re.search(answer, shown)
    assert "nan" not in shown and "quivalent" not in shown


def test_few_images_give_no_verdict(toy_sweep, capsys):
    primary = "ld=mask vs none on mIoU within 50"
    for images, few in ((29, True), (30, False)):
        found = print_table(
            toy_sweep(with_ga_only, primary=primary, images=images, name=f"of_{images}"),
            samples=200,
            margin=50,
        )
        shown = capsys.readouterr().out
        effects = [*found.differences, *found.main_effects, *found.given, found.answer]
        words = {one.conclusion for one in effects}
        assert words == {"too few images"} if few else "too few images" not in words
        assert any(one.clear for one in effects) != few
        assert ("No verdict: 29 images are too few, evaluate 30 or more" in shown) == few
        assert ("Equivalent within" in shown) != few and ("equivalent" in shown) != few
        assert all(np.isnan(one).all() == few for one in found.class_p[1:2])


def test_margin_of_a_table_tests_equivalence(toy_sweep, capsys):
    print_table(toy_sweep(), samples=300, form="md", margin=30)
    text = capsys.readouterr().out
    section = text[text.index("## Equivalence") : text.index("## Boundaries")]
    assert section.count("| equivalent |") == 7 and "within 30 points of 0" in section
    with pytest.raises(ValueError, match="--margin is 0; it must be above 0"):
        print_table(toy_sweep(name="x"), margin=0)


def test_deviation_is_printed_paired_and_unpaired(toy_sweep, capsys):
    print_table(toy_sweep(lambda ga, ld, seed: 0.6 + 0.05 * seed), samples=200, form="md")
    text = capsys.readouterr().out
    unpaired, paired = re.search(
        r"mIoU deviates by (\d\.\d\d) points in one arm, and by (\d\.\d\d) points once", text
    ).groups()
    assert float(unpaired) > 4 > 2 > float(paired) and f"--sd {paired}" in text


def test_units_and_selection_are_printed(toy_sweep, capsys):
    folder = toy_sweep(groups=lambda place: f"place {place // 2}")
    print_table(folder, samples=200, form="md")
    text = capsys.readouterr().out
    assert "15 groups of images, 30 images in all, were drawn as wholes" in text
    assert "The images of val chose the checkpoints" in text and "report --split test" in text
    honest = toy_sweep(name="t", split="test", groups=lambda place: "one video")
    print_table(honest, split="test", samples=200)
    shown = capsys.readouterr().out
    assert "1 group cannot support a claim about other places" in shown
    assert "chose the checkpoints" not in shown
    results = honest / "cell_0" / "results.json"
    stored = json.loads(results.read_text()) | {"val/receipt": {"ground_truth_sha256": "2e"}}
    results.write_text(json.dumps(stored))
    print_table(honest, split="test", samples=200)
    assert "The images of test are those of val" in capsys.readouterr().out
