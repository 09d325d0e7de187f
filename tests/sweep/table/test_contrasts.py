"""False alarms and true effects in simulated sweeps; unequal seeds; missing scores."""

import numpy as np
import pytest

from gald.comparison.bootstrap import holm, resampled
from gald.sweep.table.contrasts import Estimator, fit, seed_deviation


def hit_rate(sums):
    """Return the fraction of pixels that are hit (S, 1)."""
    return (sums[..., 0] / sums[..., 1])[..., None]


def simulate(rng, arms, seeds, deviation, effect=0.0, images=40):
    """Draw the counts of each run (N, 2): images and seeds differ, and the last arm is better."""
    image_skill = rng.normal(0.7, 0.1, images)
    seed_skill = rng.normal(0, 0.01, seeds)
    counts = []
    for arm in range(arms):
        for seed in range(seeds):
            better = effect if arm == arms - 1 else 0
            skill = image_skill + seed_skill[seed] + rng.normal(0, deviation) + better
            skill += rng.normal(0, 0.02, images)
            hits = rng.binomial(1000, np.clip(skill, 0, 1))
            counts.append(np.stack([hits, np.full(images, 1000)], 1))
    return counts


def p_values(counts, arms, seeds, seed):
    """Return the p values of all arms against the first, after Holm's correction."""
    arm_of_run, seed_of_run = np.repeat(np.arange(arms), seeds), np.tile(np.arange(seeds), arms)
    scores = np.concatenate([hit_rate(one.sum(0, keepdims=True)) for one in counts])
    drawn = np.stack([resampled(one, hit_rate, 400, seed) for one in counts], 1)
    weights = np.eye(arms)[1:] - np.eye(arms)[0]
    found = Estimator(arm_of_run, seed_of_run, scores, len(counts[0])).estimate(weights, drawn)
    return holm(np.array([difference.p[0] for difference, _ in found]))


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("arms", "seeds", "deviation", "most"),
    [
        # In 600 sweeps 4.8, 2.3, 1.0 and 4.0 of 100; of 200, 5% may be 16.
        (4, 3, 0.01, 16),
        (6, 2, 0.005, 10),
        (4, 3, 0.0, 10),
        (2, 3, 0.01, 16),
    ],
)
def test_at_most_5_of_100_sweeps_without_effect_give_a_false_alarm(arms, seeds, deviation, most):
    rng = np.random.default_rng(0)
    alarms = [
        (p_values(simulate(rng, arms, seeds, deviation), arms, seeds, k) < 0.05).any()
        for k in range(200)
    ]
    assert sum(alarms) <= most


def test_simulated_effect_of_one_arm_is_detected():
    rng = np.random.default_rng(1)
    clear = [p_values(simulate(rng, 4, 3, 0.005, effect=0.03), 4, 3, k) < 0.05 for k in range(50)]
    assert sum(sweep[2] for sweep in clear) >= 45
    assert sum(sweep[:2].any() for sweep in clear) <= 3


def contrast(arms, seeds, weights, scores, drawn, units=1000):
    """Estimate one weighted sum of arms."""
    estimator = Estimator(arms, seeds, scores, units)
    return next(estimator.estimate([np.array(weights, float)], drawn))


def interval(arms, seeds, scores, weights=(-1, 1), drawn=None):
    column = np.array(scores, float)[:, None]
    drawn = np.repeat(column[None], 4000, 0) if drawn is None else drawn
    difference, degrees_of_freedom = contrast(arms, seeds, weights, column, drawn)
    return [float(part[0]) for part in difference[2:5]], int(degrees_of_freedom[0])


def test_images_without_noise_leave_students_interval_of_paired_seeds():
    (difference, low, high), degrees_of_freedom = interval(
        [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0.5, 0.6, 0.4, 0.61, 0.72, 0.5]
    )
    change = np.array([0.11, 0.12, 0.10])
    half_width = 4.303 * change.std(ddof=1) / np.sqrt(3)  # t with 2 degrees of freedom
    assert degrees_of_freedom == 2 and difference == pytest.approx(change.mean())
    assert (high - low) / 2 == pytest.approx(half_width, rel=1e-3)


def test_unequal_seeds_are_compared_on_common_seeds():
    # Seed 9 has a high score in the only arm that has it, which must not count as a gain.
    arms, seeds = [0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 9]
    (difference, *_), degrees_of_freedom = interval(
        arms, seeds, [0.5, 0.6, 0.4, 0.51, 0.61, 0.41, 0.9]
    )
    assert difference == pytest.approx(0.01) and degrees_of_freedom == 2


def test_arms_without_common_seeds_are_compared_unpaired():
    (difference, *_), degrees_of_freedom = interval(
        [0, 0, 1, 1], [0, 1, 2, 3], [0.5, 0.6, 0.7, 0.8]
    )
    assert difference == pytest.approx(0.2) and degrees_of_freedom == 2


def test_one_seed_gives_the_interval_of_images_and_no_degrees_of_freedom():
    column = np.array([[0.5], [0.6]])
    drawn = column + np.random.default_rng(0).normal(0, 0.01, (4000, 2, 1))
    (_, low, high), degrees_of_freedom = interval([0, 1], [0, 0], [0.5, 0.6], drawn=drawn)
    assert degrees_of_freedom == 0 and high - low == pytest.approx(
        2 * 1.96 * 0.01 * np.sqrt(2), rel=0.1
    )


def test_chance_that_differs_from_run_to_run_is_counted_once():
    # The noise of a run on the images it was given is in the residuals between seeds already.
    arms, seeds = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    noise = np.random.default_rng(0).normal(0, 0.01, (4000, 6, 1))
    for spread, left in ((0.1, 0), (0, 2 * 0.01**2 / 3)):  # of seeds: more than that, or none
        column = np.array([0.5, 0.5, 0.5, 0.6, 0.6 + spread, 0.6])[:, None]
        found, _ = contrast(arms, seeds, [-1, 1], column, column + noise)
        (of_images, *_), (of_seeds, *_) = found.sources[:, 0]
        assert of_images == pytest.approx(left, rel=0.1, abs=0.05 * 2 * 0.01**2 / 3)
        assert (of_seeds > 0.01**2) == (spread > 0)


def test_missing_score_of_an_arm_is_nan_and_others_stay():
    scores = np.array([[0.5, np.nan], [0.6, 0.3], [0.7, np.nan], [0.8, np.nan]])
    drawn = np.repeat(scores[None], 50, 0)
    result, degrees_of_freedom = contrast(
        [0, 0, 1, 1], [0, 1, 0, 1], np.array([-1.0, 1]), scores, drawn
    )
    assert np.isfinite(result.difference[0]) and np.isnan([part[1] for part in result[:-1]]).all()
    assert degrees_of_freedom.tolist() == [1, 0]


def test_interaction_of_a_square_is_the_difference_of_differences():
    result = fit(np.repeat(np.arange(4), 2), np.tile([0, 1], 4), np.array([1.0, -1, -1, 1]))
    assert result is not None and result.degrees_of_freedom == 3
    np.testing.assert_allclose(result.weights, [0.5, 0.5, -0.5, -0.5, -0.5, -0.5, 0.5, 0.5])


def test_deviation_between_seeds_is_pooled_over_arms_with_and_without_what_seeds_share():
    arms, seeds = [0, 0, 1, 1], [0, 1, 0, 1]
    same = seed_deviation(arms, seeds, [1.0, 3, 7, 9])  # both arms gain 2 from seed 0 to 1
    assert same is not None and same.unpaired == pytest.approx(np.sqrt(2))
    assert same.paired == pytest.approx(0, abs=1e-9) and same.degrees_of_freedom == 1
    apart = seed_deviation(arms, [0, 1, 2, 3], [1.0, 3, 7, 9])
    assert apart is not None and apart.paired == apart.unpaired and apart.degrees_of_freedom == 2
    assert seed_deviation([0, 1], [0, 0], [1.0, 3]) is None
    missing = seed_deviation([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [1.0, 3, np.nan, 7, 9])
    assert missing == same


def test_reported_deviation_is_the_one_that_a_paired_comparison_has():
    rng = np.random.default_rng(3)  # seeds move all arms together by 0.63, and each run by 0.54
    arms, seeds = np.repeat(np.arange(9), 300), np.tile(np.arange(300), 9)
    found = seed_deviation(arms, seeds, rng.normal(0, 0.63, 300)[seeds] + rng.normal(0, 0.54, 2700))
    assert found is not None
    assert found.unpaired == pytest.approx(0.83, abs=0.03)
    assert found.paired == pytest.approx(0.54, abs=0.02)
