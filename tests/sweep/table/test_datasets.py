"""One analysis of the same arms on several datasets."""

import json
import re

import pytest

from gald.sweep.table.table import print_tables


def test_a_gain_on_all_datasets_is_found_and_described(toy_sweep, gald_cli, capsys, tmp_path):
    def skill(level):
        return lambda ga, ld, seed: level + 0.002 * seed + 0.05 * (ld == "mask")

    folders = [
        toy_sweep(skill(level), ga=("none",), name=name, images=images)
        for level, name, images in ((0.7, "camvid", 30), (0.6, "facade", 31), (0.8, "cracks", 32))
    ]
    to = tmp_path / "report"
    gald_cli("table", *map(str, folders), "--samples", "300", "--to", str(to))
    shown = capsys.readouterr().out
    assert shown.startswith("1 of 1 arms differ from ld=none in the mean of these 3 datasets")
    row = next(line for line in shown.splitlines() if line.startswith("│ ld=mask"))
    assert "better" in row and "100%" in row and len(re.findall(r"\+\d+\.\d\d ", row)) >= 4
    assert "3 datasets say little about others" in shown
    assert "Kendall's tau, mean of 3 pairs of datasets): 1.00" in shown
    assert "facade: The 31 images were drawn one by one" in shown
    assert "The images of val chose the checkpoints" in shown
    assert "camvid" in (to / "report.html").read_text()


def test_a_gain_on_one_dataset_and_a_loss_on_another_says_nothing_of_others(toy_sweep, capsys):
    folders = [
        toy_sweep(
            lambda ga, ld, seed, s=s: 0.7 + s * 0.06 * (ld == "mask"),
            ga=("none",),
            name=n,
            images=31 + s,
        )
        for s, n in ((1, "gain"), (-1, "loss"))
    ]
    (differences, ranks) = print_tables(folders, samples=300)
    (row,) = differences.rows
    others = dict(zip(differences.header, row, strict=True))["on others"]
    low, high = map(float, others.split(" to "))
    assert low < -20 and high > 20  # one degree of freedom
    assert "Kendall's tau, mean of 1 pairs of datasets): -1.00" in ranks.words
    assert capsys.readouterr().out.startswith("Inside the noise")


def test_sweeps_without_common_arms_and_wrong_options_are_refused(toy_sweep, gald_cli):
    a = toy_sweep(name="a")
    b = toy_sweep(name="b", ga=("cgnl", "cc"), images=31)
    with pytest.raises(ValueError, match="2 sweeps have 0 arms in common, and 2 are needed"):
        gald_cli("table", str(a), str(b))
    with pytest.raises(ValueError, match="2 sweeps are given, and one of them twice"):
        gald_cli("table", str(a), str(a))
    with pytest.raises(
        ValueError, match="--format, --measure, --margin and --image are for one sweep, and 2"
    ):
        gald_cli("table", str(a), str(b), "--format", "md")


def test_one_seed_each_gives_no_verdict(toy_sweep, capsys):
    folders = [
        toy_sweep(
            lambda ga, ld, seed: 0.7 + 0.1 * (ld == "mask"), seeds=(0,), name=name, images=images
        )
        for name, images in (("one", 30), ("two", 31))
    ]
    (differences, _) = print_tables(folders, samples=200)
    assert {row[-4] for row in differences.rows} == {"seeds unknown"}


def test_one_dataset_of_few_images_gives_no_verdict(toy_sweep, capsys):
    folders = [
        toy_sweep(
            lambda ga, ld, seed: 0.7 + 0.002 * seed + 0.05 * (ld == "mask"),
            name=name,
            images=images,
        )
        for name, images in (("a", 29), ("b", 40))
    ]
    (differences, _) = print_tables(folders, samples=200)
    assert {row[-4] for row in differences.rows} == {"too few images"}
    assert capsys.readouterr().out.startswith("No verdict: each dataset needs 30 images")


def test_one_dataset_given_as_two_is_refused(toy_sweep):
    folders = [toy_sweep(name=name, seeds=seeds) for name, seeds in (("a", (0, 1)), ("b", (2, 3)))]
    with pytest.raises(ValueError, match="b have the same 30 images of val, so they are one data"):
        print_tables(folders, samples=200)


def test_what_a_dataset_lacks_is_said(toy_sweep, capsys):
    lost = {("none", "mask", 1): ("failed", "out of memory")}
    a = toy_sweep(name="a", ga=("none",), ld=("none", "mask", "const"), unfinished=lost)
    b = toy_sweep(name="b", ga=("none",), images=31)
    for cell in ("cell_3", "cell_4", "cell_5"):
        path = b / cell / "results.json"
        results = json.loads(path.read_text())
        results["val/receipt"]["reads_truth"] = True
        path.write_text(json.dumps(results))
    print_tables([a, b], samples=200)
    of_a, of_b = (
        next(line for line in lines if line.startswith(f"{name}: "))
        for lines in [capsys.readouterr().out.splitlines()]
        for name in "ab"
    )
    assert "Not every sweep has ld=const; left out." in of_a
    assert f"Cells without a run: 1, listed by gald table {a} --split val." in of_a
    assert f"see gald sweep audit {a}" in of_a and "audit" not in of_b
    assert of_b.count("ld=mask: the network reads the ground truth, in evaluation too") == 1
