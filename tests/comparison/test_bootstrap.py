"""The bootstrap against formulas, planted effects and hundreds of experiments without an effect."""

import time
import tracemalloc

import numpy as np
import pytest

from gald.comparison import bootstrap
from gald.comparison.bootstrap import (
    class_iou,
    holm,
    mean_iou,
    paired_bootstrap,
    resampled,
    true_class_iou,
    true_mean_iou,
)


def draw_counts(rng, images, classes=4, skill=0.0, pixels=400):
    """Draw hits, true and predicted pixels (N, 3, K); images differ in difficulty."""
    true = rng.multinomial(pixels, np.ones(classes) / classes, size=images)
    rate = np.clip(rng.normal(0.7 + skill, 0.1, (images, 1)), 0, 1)
    hits = rng.binomial(true, rate)
    predicted = hits + rng.multinomial(pixels // 4, np.ones(classes) / classes, size=images)
    return np.stack([hits, true, predicted], 1)


def accuracy(sums):
    return sums[:, 0].sum(-1) / sums[:, 1].sum(-1)


def total(sums):
    return sums[:, 0]


@pytest.mark.integration
def test_interval_contains_zero_in_95_of_100_experiments_without_a_difference():
    rng = np.random.default_rng(0)
    containing_zero = 0
    for seed in range(400):
        a, b = draw_counts(rng, 80), draw_counts(rng, 80)
        containing_zero += not paired_bootstrap(a, b, mean_iou, 400, seed).clear
    assert 0.93 <= containing_zero / 400 <= 0.97


@pytest.mark.integration
def test_p_value_is_below_5_percent_in_5_of_100_experiments_without_a_difference():
    rng = np.random.default_rng(1)
    p = [
        paired_bootstrap(draw_counts(rng, 80), draw_counts(rng, 80), mean_iou, 400).p
        for _ in range(400)
    ]
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07
    assert 0.4 <= np.mean(np.array(p) < 0.5) <= 0.6


def test_planted_effect_is_found_and_its_size_is_in_the_interval():
    rng = np.random.default_rng(20)
    found = paired_bootstrap(
        draw_counts(rng, 200), draw_counts(rng, 200, skill=0.1), accuracy, 2000
    )
    assert found.clear and found.p < 0.01 and found.above > 0.99
    assert found.low < 0.1 < found.high


def test_reversed_order_negates_the_difference():
    rng = np.random.default_rng(3)
    a, b = draw_counts(rng, 50), draw_counts(rng, 50, skill=0.02)
    forward, reverse = (paired_bootstrap(*pair, mean_iou, 500) for pair in ((a, b), (b, a)))
    assert forward.difference == -reverse.difference
    assert (forward.low, forward.high) == pytest.approx((-reverse.high, -reverse.low), abs=1e-15)
    assert (forward.p, forward.error) == pytest.approx((reverse.p, reverse.error), abs=1e-15)
    assert forward.above == pytest.approx(1 - reverse.above, abs=1e-15)


def test_linear_score_has_the_standard_error_of_the_formula():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 100, (2, 300, 1))
    found = paired_bootstrap(a, b, total, 20_000)
    change = (b - a)[:, 0]
    assert found.difference == change.sum()
    assert found.error == pytest.approx(np.sqrt(300 * change.var(ddof=1)), rel=0.02)
    assert (found.low + found.high) / 2 == pytest.approx(change.sum(), abs=0.05 * found.error)
    assert (found.high - found.low) / 2 == pytest.approx(1.968 * found.error, rel=1e-3)


def test_both_networks_get_the_same_draws():
    rng = np.random.default_rng(5)
    a = draw_counts(rng, 60)
    same = paired_bootstrap(a, a.copy(), mean_iou, 300)
    assert (same.low, same.high, same.error, same.above, same.p) == (0, 0, 0, 0.5, 1)
    assert not same.clear


def test_sums_are_scored_instead_of_averaging_image_scores():
    # One image of 10 pixels, all right, and one of 90 pixels, all wrong.
    a = np.zeros((2, 3, 2), np.int64)
    b = np.array([[[10, 0], [10, 0], [10, 0]], [[0, 0], [90, 0], [0, 90]]])
    found = paired_bootstrap(a, b, mean_iou, 200)
    assert found.b == pytest.approx((10 / 100 + 0 / 90) / 2)


def test_samples_equal_those_of_a_plain_loop():
    rng = np.random.default_rng(6)
    a, b = draw_counts(rng, 7), draw_counts(rng, 7)
    found = paired_bootstrap(a, b, class_iou, 50, seed=9)
    drawn = np.random.default_rng(9).integers(7, size=(50, 7))
    loop = [class_iou(b[images].sum(0)) - class_iou(a[images].sum(0)) for images in drawn]
    assert found.error == pytest.approx(np.std(loop, axis=0) * np.sqrt(7 / 6))
    assert found.high == pytest.approx(found.difference + 2.447 * found.error, rel=1e-3)  # t, 6


def test_block_size_does_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(7)
    a, b = draw_counts(rng, 30), draw_counts(rng, 30)
    at_once = paired_bootstrap(a, b, mean_iou, 100)
    monkeypatch.setattr(bootstrap, "BLOCK_CELLS", 30 * 7)
    in_parts = paired_bootstrap(a, b, mean_iou, 100)
    np.testing.assert_allclose(in_parts[:-1], at_once[:-1], atol=1e-12)


def test_same_seed_draws_the_same_images_for_every_network():
    rng = np.random.default_rng(13)
    a, b = draw_counts(rng, 20), draw_counts(rng, 20)
    separate = resampled(b, mean_iou, 200, seed=3) - resampled(a, mean_iou, 200, seed=3)
    found = paired_bootstrap(a, b, mean_iou, 200, seed=3)
    assert found.error == pytest.approx(separate.std() * np.sqrt(20 / 19))


def test_absent_class_is_nan_and_a_rare_class_is_scored_in_draws_that_contain_it():
    rng = np.random.default_rng(8)
    a, b = draw_counts(rng, 20), draw_counts(rng, 20)
    for counts in (a, b):
        counts[:, :, 3] = 0
        counts[1:, :, 2] = 0
    a[0, :, 2] = [5, 9, 7]
    b[0, :, 2] = [6, 9, 7]
    found = paired_bootstrap(a, b, true_class_iou, 300)
    assert np.isnan([part[3] for part in found[:-1]]).all() and not found.clear[3]
    # One image has the class, and one image has no interval.
    assert found.difference[2] > 0 and np.isnan([found.low[2], found.p[2]]).all()
    assert not found.clear[2]
    assert np.isfinite(paired_bootstrap(a, b, true_mean_iou, 300)[:-1]).all()


def test_a_score_that_one_network_has_for_a_single_image_has_no_interval():
    a, b = np.ones((2, 6, 2))
    b[1:] = 0  # the second network has a score for the first image alone

    def score(sums):
        with np.errstate(invalid="ignore"):
            return sums[:, 1] / sums[:, 0]

    assert np.isnan(paired_bootstrap(a, b, score, 100).low)
    assert np.isnan(paired_bootstrap(b, a, score, 100).low)


def test_false_pixels_of_a_class_that_no_image_has_cost_no_network_a_class():
    counts = np.array([[4, 0], [8, 0], [8, 1]])  # hits, true and predicted pixels
    assert mean_iou(counts) == pytest.approx((4 / 12 + 0) / 2)
    assert np.isnan(true_class_iou(counts)[1])
    assert true_mean_iou(counts) == pytest.approx(4 / 12)


def test_iou_of_a_hand_made_image():
    counts = np.array([[1, 0, 0], [2, 1, 0], [3, 0, 0]])
    assert class_iou(counts)[:2].tolist() == [1 / 4, 0] and np.isnan(class_iou(counts)[2])
    assert mean_iou(counts) == 1 / 8
    assert np.isnan(mean_iou(np.zeros((3, 2))))


def test_holm_steps_down_from_the_smallest():
    adjusted = holm(np.array([0.04, np.nan, 0.01, 0.03, 0.5]))
    np.testing.assert_allclose(adjusted, [0.09, np.nan, 0.04, 0.09, 0.5])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("a", "b", "samples", "sentence"),
    [
        ((5, 3, 2), (4, 3, 2), 10, r"\(5, 3, 2\) and \(4, 3, 2\) cannot be paired"),
        ((1, 3, 2), (1, 3, 2), 10, "evaluate at least 2 images"),
        ((5, 3, 2), (5, 3, 2), 0, "samples is 0; draw at least 1"),
    ],
)
def test_invalid_counts_and_samples_are_refused(a, b, samples, sentence):
    with pytest.raises(ValueError, match=sentence):
        paired_bootstrap(np.ones(a), np.ones(b), mean_iou, samples)


def test_memory_does_not_grow_with_samples_times_images():
    rng = np.random.default_rng(12)
    a, b = rng.integers(0, 1000, (2, 1000, 3, 171))
    tracemalloc.start()
    start = time.monotonic()
    paired_bootstrap(a, b, mean_iou, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6, f"{peak / 1e6:.0f} MB, {time.monotonic() - start:.1f} s"
