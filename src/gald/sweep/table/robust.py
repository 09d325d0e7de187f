"""Descriptions of a few runs that a single lucky run does not decide.

Paper: "Deep reinforcement learning at the edge of the statistical precipice",
https://arxiv.org/abs/2108.13264, which the package rliable implements.
"""

import numpy as np


def probability_of_improvement(scores: np.ndarray, baseline: np.ndarray) -> float:
    """Return the share of pairs in which a run scores above one of the baseline; a tie is half.

    Args:
        scores: scores of the runs (runs,), where larger is better; nan does not count.
        baseline: scores of the baseline's runs (runs,).
    """
    a, b = scores[~np.isnan(scores)], baseline[~np.isnan(baseline)]
    if not len(a) or not len(b):
        return float("nan")
    difference = a[:, None] - b[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def interquartile_mean(scores: np.ndarray) -> float:
    """Average the middle half of some scores (runs,); a run at an edge of it counts in part."""
    known = np.sort(scores[~np.isnan(scores)])
    count = len(known)
    if not count:
        return float("nan")
    # Each run takes a share 1/count of the line from 0 to 1; what lies in the middle half counts.
    edges = np.clip(np.arange(count + 1) / count, 0.25, 0.75)
    return float(known @ np.diff(edges) * 2)
