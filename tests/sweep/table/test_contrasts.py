"""False alarms and planted effects in simulated sweeps; unequal seeds; absent scores."""

import numpy as np
import pytest

from gald.comparison.bootstrap import holm, resampled
from gald.sweep.table.contrasts import contrast, fit, seed_deviation


def share(sums):
    """Share of the pixels that are hit (S, 1)."""
    return (sums[..., 0] / sums[..., 1])[..., None]


def simulate(rng, arms, seeds, deviation, effect=0.0, images=40):
    """Counts of each run (N, 2): images differ, seeds differ, and the last arm is better."""
    hard = rng.normal(0.7, 0.1, images)
    common = rng.normal(0, 0.01, seeds)
    found = []
    for arm in range(arms):
        for seed in range(seeds):
            better = effect if arm == arms - 1 else 0
            skill = hard + common[seed] + rng.normal(0, deviation) + better
            skill += rng.normal(0, 0.02, images)
            hits = rng.binomial(1000, np.clip(skill, 0, 1))
            found.append(np.stack([hits, np.full(images, 1000)], 1))
    return found


def p_values(counts, arms, seeds, seed):
    """Of all arms against the first, after Holm."""
    places, numbers = np.repeat(np.arange(arms), seeds), np.tile(np.arange(seeds), arms)
    scores = np.concatenate([share(one.sum(0, keepdims=True)) for one in counts])
    drawn = np.stack([resampled(one, share, 400, seed) for one in counts], 1)
    weights = np.eye(arms)[1:] - np.eye(arms)[0]
    found = [contrast(places, numbers, w, scores, drawn, seed)[0].p[0] for w in weights]
    return holm(np.array(found))


@pytest.mark.parametrize(
    ("arms", "seeds", "deviation", "most"),
    [
        (4, 3, 0.01, 10),
        (6, 2, 0.005, 10),
        (4, 3, 0.0, 10),
        (2, 3, 0.01, 16),  # one question at 5%: 4 of 100 in 1000 sweeps, and 200 may have 8
    ],
)
def test_at_most_5_of_100_sweeps_without_an_effect_are_called_one(arms, seeds, deviation, most):
    rng = np.random.default_rng(0)
    called = [
        (p_values(simulate(rng, arms, seeds, deviation), arms, seeds, k) < 0.05).any()
        for k in range(200)
    ]
    assert sum(called) <= most


def test_planted_effect_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(1)
    found = [p_values(simulate(rng, 4, 3, 0.005, effect=0.03), 4, 3, k) < 0.05 for k in range(50)]
    assert sum(one[2] for one in found) >= 45
    assert sum(one[:2].any() for one in found) <= 3


def interval(arms, seeds, scores, weights=(-1, 1), drawn=None):
    column = np.array(scores, float)[:, None]
    drawn = np.repeat(column[None], 4000, 0) if drawn is None else drawn
    found, degrees_of_freedom = contrast(arms, seeds, np.array(weights, float), column, drawn)
    return [float(part[0]) for part in found[2:5]], int(degrees_of_freedom[0])


def test_images_without_noise_leave_students_interval_of_paired_seeds():
    (difference, low, high), degrees_of_freedom = interval(
        [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0.5, 0.6, 0.4, 0.61, 0.72, 0.5]
    )
    change = np.array([0.11, 0.12, 0.10])
    reach = 4.303 * change.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert degrees_of_freedom == 2 and difference == pytest.approx(change.mean())
    assert (high - low) / 2 == pytest.approx(reach, rel=0.15)


def test_unequal_seeds_are_compared_where_both_have_them():
    # Seed 9 is a lucky one; only the second arm has it, and so it must not count as a gain.
    arms, seeds = [0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 9]
    (difference, *_), degrees_of_freedom = interval(
        arms, seeds, [0.5, 0.6, 0.4, 0.51, 0.61, 0.41, 0.9]
    )
    assert difference == pytest.approx(0.01) and degrees_of_freedom == 2


def test_seeds_in_common_to_none_are_compared_as_if_apart():
    (difference, *_), degrees_of_freedom = interval(
        [0, 0, 1, 1], [0, 1, 2, 3], [0.5, 0.6, 0.7, 0.8]
    )
    assert difference == pytest.approx(0.2) and degrees_of_freedom == 2


def test_one_seed_leaves_the_interval_of_images_and_no_freedom():
    column = np.array([[0.5], [0.6]])
    drawn = column + np.random.default_rng(0).normal(0, 0.01, (4000, 2, 1))
    (_, low, high), degrees_of_freedom = interval([0, 1], [0, 0], [0.5, 0.6], drawn=drawn)
    assert degrees_of_freedom == 0 and high - low == pytest.approx(
        2 * 1.96 * 0.01 * np.sqrt(2), rel=0.1
    )


def test_score_that_an_arm_lacks_is_nan_and_others_stay():
    scores = np.array([[0.5, np.nan], [0.6, 0.3], [0.7, np.nan], [0.8, np.nan]])
    drawn = np.repeat(scores[None], 50, 0)
    found, degrees_of_freedom = contrast(
        [0, 0, 1, 1], [0, 1, 0, 1], np.array([-1.0, 1]), scores, drawn
    )
    assert np.isfinite(found.difference[0]) and np.isnan([part[1] for part in found]).all()
    assert degrees_of_freedom.tolist() == [1, 0]


def test_interaction_of_a_square_is_the_difference_of_differences():
    found = fit(np.repeat(np.arange(4), 2), np.tile([0, 1], 4), np.array([1.0, -1, -1, 1]))
    assert found is not None and found.degrees_of_freedom == 3
    np.testing.assert_allclose(found.weights, [0.5, 0.5, -0.5, -0.5, -0.5, -0.5, 0.5, 0.5])


def test_deviation_between_seeds_is_pooled_over_arms():
    assert seed_deviation([0, 0, 1, 1], np.array([1.0, 3, 7, 9])) == pytest.approx(np.sqrt(2))
    assert seed_deviation([0, 1], np.array([1.0, 3])) is None
