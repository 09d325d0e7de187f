"""One analysis of the same arms on several datasets."""

import re

import pytest

from gald.sweep.table.table import print_tables


def test_a_gain_on_all_datasets_is_found_and_described(toy_sweep, gald_cli, capsys, tmp_path):
    def skill(level):
        return lambda ga, ld, seed: level + 0.002 * seed + 0.05 * (ld == "mask")

    folders = [
        toy_sweep(skill(level), ga=("none",), name=name)
        for level, name in ((0.7, "camvid"), (0.6, "facade"), (0.8, "cracks"))
    ]
    to = tmp_path / "report"
    gald_cli("table", *map(str, folders), "--samples", "300", "--to", str(to))
    shown = capsys.readouterr().out
    assert shown.startswith("1 of 1 arms differ from ld=none in the mean of these 3 datasets")
    row = next(line for line in shown.splitlines() if line.startswith("│ ld=mask"))
    assert "better" in row and "100%" in row and len(re.findall(r"\+\d+\.\d\d ", row)) >= 4
    assert "3 datasets say little about others" in shown
    assert "Kendall's tau, mean of 3 pairs of datasets): 1.00" in shown
    assert "facade: The 30 images were drawn one by one" in shown
    assert "The images of val chose the checkpoints" in shown
    assert "camvid" in (to / "report.html").read_text()


def test_a_gain_on_one_dataset_and_a_loss_on_another_says_nothing_of_others(toy_sweep, capsys):
    folders = [
        toy_sweep(lambda ga, ld, seed, s=s: 0.7 + s * 0.06 * (ld == "mask"), ga=("none",), name=n)
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
    b = toy_sweep(name="b", ga=("cgnl", "cc"))
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
        toy_sweep(lambda ga, ld, seed: 0.7 + 0.1 * (ld == "mask"), seeds=(0,), name=name)
        for name in ("one", "two")
    ]
    (differences, _) = print_tables(folders, samples=200)
    assert {row[-4] for row in differences.rows} == {"seeds unknown"}
