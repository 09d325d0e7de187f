"""Where arms differ: the curves of the metrics in the report of a sweep."""

from types import SimpleNamespace

import pytest

from gald.metrics.trimap import Trimap
from gald.sweep.table.along import DRAWN, along
from gald.sweep.table.arms import Arm

METRICS = [Trimap(2, farthest=3)]


def run(*errors):
    results = {f"test/trimap/{place + 1}": error for place, error in enumerate(errors)}
    return SimpleNamespace(results=results | {"test/trimap/1/road": 0.9}, metrics=METRICS)


def sweep(**arms):
    built = [Arm({}, label, runs) for label, runs in arms.items()]
    return SimpleNamespace(split="test", arms=built), built[0]


def test_differences_are_means_over_the_seeds_that_both_arms_have():
    base = {0: run(0.5, 0.4, None), 1: run(0.7, 0.2, None)}
    other = {1: run(0.4, 0.3, 0.1), 2: run(0.0, 0.0, 0.0)}
    both = {0: run(0.6, 0.4, None), 1: run(0.9, 0.2, None)}
    (section,) = along(*sweep(base=base, other=other, both=both))
    assert section.header == ("arm", "1 px", "2 px", "3 px")
    assert section.rows == [
        ["other", "-30.00", "+10.00", ""],
        ["both", "+15.00", "+0.00", ""],
    ]
    assert "less is better" in section.words and "base" in section.words
    name, png = section.figure
    assert name == "along_trimap.png" and png.startswith(b"\x89PNG")


def test_many_arms_are_in_the_table_and_the_most_different_ones_in_the_figure():
    arms = {f"arm{n}": {0: run(0.1 * n, 0.1, 0.1)} for n in range(DRAWN + 3)}
    (section,) = along(*sweep(**arms))
    assert len(section.rows) == DRAWN + 2
    assert f"The figure has the {DRAWN} arms that differ most." in section.words


@pytest.mark.parametrize("arms", [{"base": {0: run(0.5, 0.4)}}, {"base": {0: run(0.5)}, "x": {}}])
def test_one_arm_or_one_place_has_no_curve(arms):
    assert along(*sweep(**arms)) == []
