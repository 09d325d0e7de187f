"""Probability of improvement, interquartile mean, agreement of rankings."""

import numpy as np
import pytest

from gald.sweep.table.datasets import rank_agreement
from gald.sweep.table.robust import interquartile_mean, probability_of_improvement


def test_probability_of_improvement_counts_pairs_and_half_of_the_ties():
    assert probability_of_improvement(np.array([2.0, 3]), np.array([1.0, 2])) == 3.5 / 4
    assert probability_of_improvement(np.array([1.0, np.nan]), np.array([2.0])) == 0
    assert np.isnan(probability_of_improvement(np.array([np.nan]), np.array([2.0])))


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert interquartile_mean(np.array([0.0, 1, 3, 100])) == 2
    assert interquartile_mean(np.array([5.0])) == 5
    # Of three runs the middle half has all of the second and a quarter of each other.
    assert interquartile_mean(np.array([0.0, 1, 5])) == pytest.approx(
        (0.25 * 0 + 1 + 0.25 * 5) / 1.5
    )
    assert interquartile_mean(np.array([np.nan, 7, 7, np.nan])) == 7
    assert np.isnan(interquartile_mean(np.array([np.nan])))


def test_agreement_of_rankings_is_kendalls_tau():
    assert rank_agreement([1, 2, 3], [1, 2, 3]) == 1 and rank_agreement([1, 2, 3], [3, 2, 1]) == -1
    assert rank_agreement([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert np.isnan(rank_agreement([1, 1], [1, 2]))
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(1, 5, (2, 8))
        assert rank_agreement(a, b) == pytest.approx(kendalltau(a, b).statistic)
