"""Main effects and interactions are weighted sums of arms."""

import numpy as np

from gald.sweep.table.arms import Arm, label
from gald.sweep.table.effects import differences, interactions, main_effects

FACTORS = {"model/ga": ["none", "psp", "cgnl"], "model/ld": ["none", "mask"]}
BASE = {"model/ga": "none", "model/ld": "none"}


def arms(*left_out):
    pairs = [(g, d) for g in FACTORS["model/ga"] for d in FACTORS["model/ld"]]
    kept = [dict(zip(FACTORS, pair, strict=True)) for pair in pairs if pair not in left_out]
    return [Arm(values, label(values)) for values in kept]


def estimates(contrasts, score, grid):
    numbers = np.array([score(**{k[-2:]: v for k, v in arm.values.items()}) for arm in grid])
    return {c.name: round(float(c.weights @ numbers), 9) for c in contrasts}


GAIN = {"none": 0, "psp": 2, "cgnl": 5}


def test_estimates_equal_the_known_effects():
    def score(ga, ld):
        return (
            60 + GAIN[ga] + (1 if ld == "mask" else 0) + (4 if (ga, ld) == ("psp", "mask") else 0)
        )

    grid = arms()
    assert estimates(main_effects(grid, FACTORS, BASE), score, grid) == {
        "ga=psp": 2 + 4 / 2,
        "ga=cgnl": 5,
        "ld=mask": round(1 + 4 / 3, 9),
    }
    assert estimates(interactions(grid, FACTORS, BASE), score, grid) == {
        "ga=psp : ld=mask": 4,
        "ga=cgnl : ld=mask": 0,
    }
    assert estimates(differences(grid, 0), score, grid)["ga=psp ld=mask"] == 7


def test_settings_without_both_arms_are_left_out():
    grid = arms(("cgnl", "mask"))
    settings = {c.name: c.settings for c in main_effects(grid, FACTORS, BASE)}
    assert settings == {"ga=psp": 2, "ga=cgnl": 1, "ld=mask": 2}
    assert [c.name for c in interactions(grid, FACTORS, BASE)] == ["ga=psp : ld=mask"]
    grid = arms(("cgnl", "none"))  # of the last two arms, the one that is compared with
    effects = {c.name: c for c in main_effects(grid, FACTORS, BASE)}
    assert effects["ld=mask"].settings == 2 and effects["ga=cgnl"].settings == 1
    assert effects["ld=mask"].weights.tolist() == [-0.5, 0.5, -0.5, 0.5, 0]


def test_level_without_any_arm_has_no_contrast():
    grid = arms(("psp", "none"), ("psp", "mask"))
    assert [c.name for c in main_effects(grid, FACTORS, BASE)] == ["ga=cgnl", "ld=mask"]


def test_labels_fall_back_to_whole_keys():
    assert label({"model/ga": "psp"}) == "ga=psp"
    assert label({"a.lr": "1", "b.lr": "2"}) == "a.lr=1 b.lr=2"
    assert label({}) == "all runs"
