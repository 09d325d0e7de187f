"""Contrasts between arms, estimated from few seeds and from the images that all runs share.

The score of a run is modelled as the effect of its arm (one way to train), plus the effect of its
seed, plus noise of equal variance in all arms. The noise between seeds is estimated from the
residuals of all arms together: three seeds alone give a poor estimate (2 degrees of freedom), three
seeds of eight arms a good one (14). A bootstrap over seeds does not help: in 100 sweeps of 4 equal
arms and 3 seeds without any effect, it reported an effect 18 times.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference, summarise


class Fit(NamedTuple):
    """Contrast as a weighted sum of runs.

    Attributes:
        weights: weights of the runs (runs,).
        residual_projection: maps scores of all runs to their residuals, which arms and seeds do
            not explain (runs, runs).
        degrees_of_freedom: degrees of freedom of the residuals; 0 if no seed was repeated.
    """

    weights: np.ndarray
    residual_projection: np.ndarray
    degrees_of_freedom: int


def contrast(
    arms: Sequence[int],
    seeds: Sequence[int],
    weights: np.ndarray,
    scores: np.ndarray,
    drawn: np.ndarray,
    seed: int = 0,
) -> tuple[Difference, np.ndarray]:
    """Estimate a weighted sum of arms, with the noise of images and of training seeds.

    The samples of the bootstrap over images, which all runs share, get the noise of the seeds
    added: a Student's t with the standard deviation pooled over all arms. If no seed was repeated,
    the interval covers images only and the degrees of freedom are 0.

    Args:
        arms: arm of each run, from 0 on.
        seeds: training seed of each run; runs with the same seed are compared with each other.
        weights: weights of the arms (A,), their sum is 0: -1 and 1 for a difference of two.
        scores: scores of the runs on all images (runs, M); nan where a score is not defined.
        drawn: scores on each draw of images (S, runs, M), the same draw for all runs.
        seed: seed of the random noise of the training seeds.

    Returns:
        the difference, arrays (M,), where `a` is the mean run of the arms with negative weights;
        and the degrees of freedom (M,). nan where an arm has no score.
    """
    known = ~np.isnan(scores)
    columns = scores.shape[1]
    value, base = np.full((2, columns), np.nan)
    degrees_of_freedom = np.zeros(columns, int)
    samples = np.full((len(drawn), columns), np.nan)
    noise = np.random.default_rng(seed)
    for pattern in np.unique(known, axis=1).T:
        own = np.flatnonzero((known == pattern[:, None]).all(0))  # scores that these runs have
        fitted = fit(np.asarray(arms)[pattern], np.asarray(seeds)[pattern], weights)
        if fitted is None:
            continue
        used = np.flatnonzero(pattern)
        y = scores[np.ix_(used, own)]
        value[own] = fitted.weights @ y
        base[own] = y[weights[np.asarray(arms)[pattern]] < 0].mean(0)
        degrees_of_freedom[own] = fitted.degrees_of_freedom
        samples[:, own] = np.einsum("r,srm->sm", fitted.weights, drawn[:, used][:, :, own])
        if fitted.degrees_of_freedom:
            variance = ((fitted.residual_projection @ y) ** 2).sum(0) / fitted.degrees_of_freedom
            spread = np.sqrt(variance * (fitted.weights**2).sum())
            samples[:, own] += noise.standard_t(fitted.degrees_of_freedom, (len(drawn), 1)) * spread
    return summarise(base, base + value, samples), degrees_of_freedom


def fit(arms: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> Fit | None:
    """Express a contrast of arms as a weighted sum of runs by least squares; None if impossible.

    Runs are compared within seeds if the seeds link the arms and leave a degree of freedom.
    Otherwise every run counts as having a seed of its own.
    """
    arm_design = (arms[:, None] == np.arange(len(weights))).astype(float)
    seed_design = (seeds[:, None] == np.unique(seeds)).astype(float)
    for design in (np.hstack([arm_design, seed_design]), arm_design):
        inverse = np.linalg.pinv(design)
        target = np.zeros(design.shape[1])
        target[: len(weights)] = weights
        estimable = np.allclose(target @ inverse @ design, target, atol=1e-8)
        degrees_of_freedom = len(arms) - int(np.linalg.matrix_rank(design))
        if estimable and (degrees_of_freedom or design is arm_design):
            residual_projection = np.eye(len(arms)) - design @ inverse
            runs = target @ inverse
            return Fit(
                np.where(abs(runs) < 1e-12, 0, runs), residual_projection, degrees_of_freedom
            )
    return None


def seed_deviation(arms: Sequence[int], scores: Sequence[float] | np.ndarray) -> float | None:
    """Return the standard deviation of scores between seeds, pooled over arms.

    None if no arm has two seeds.

    Args:
        arms: arm of each run, from 0 on.
        scores: score of each run (runs,).
    """
    count = int(max(arms)) + 1
    design = (np.asarray(arms)[:, None] == np.arange(count)).astype(float)
    degrees_of_freedom = len(arms) - int(np.linalg.matrix_rank(design))
    residuals = np.asarray(scores) - design @ np.linalg.pinv(design) @ np.asarray(scores)
    if not degrees_of_freedom:
        return None
    return float(np.sqrt((residuals**2).sum() / degrees_of_freedom))
