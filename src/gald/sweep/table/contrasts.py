"""What differences between ways to train are worth, from few seeds and the images they share.

The score of a run is taken as that of its arm (one way to train), plus that of its seed, plus
noise that is alike in all arms. The noise of the seeds is what all arms together leave unexplained:
three seeds alone know it badly (2 degrees of freedom), three seeds of eight arms well (14).
Drawing seeds with replacement would be no way out: of 100 sweeps of 4 equal arms and 3 seeds
without any effect, it called one in 18.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference, summarise


class Fit(NamedTuple):
    """One comparison as a weighted sum of runs.

    Attributes:
        weights: of the runs (runs,); nan where the runs cannot answer it.
        leftover: takes scores of all runs to what arms and seeds leave unexplained (runs, runs).
        freedom: degrees of freedom of that; 0 where no seed was repeated.
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
    """Judge a weighted sum of arms, over images and training seeds together.

    To the bootstrap over images, which all runs share, comes the noise of the seeds: a Student's t
    with the deviation that all arms have in common. Where no seed was repeated, the interval knows
    images only and the degrees of freedom are 0.

    Args:
        arms: the arm of each run, from 0 on.
        seeds: its training seed; runs of one seed are compared with each other.
        weights: of the arms (A,), their sum is 0: -1 and 1 for a difference of two.
        scores: of the runs on all images (runs, M); nan where a score is not defined.
        drawn: on each draw of images (S, runs, M), the same draw for all runs.
        seed: what the noise of the seeds is drawn from.

    Returns:
        the difference, arrays (M,): `a` is the mean run of the arms with negative weights; and
        the degrees of freedom (M,). nan where an arm has no score.
    """
    known = ~np.isnan(scores)
    columns = scores.shape[1]
    value, base = np.full((2, columns), np.nan)
    degrees_of_freedom = np.zeros(columns, int)
    samples = np.full((len(drawn), columns), np.nan)
    noise = np.random.default_rng(seed)
    for pattern in np.unique(known, axis=1).T:
        here = np.flatnonzero((known == pattern[:, None]).all(0))
        found = fit(np.asarray(arms)[pattern], np.asarray(seeds)[pattern], weights)
        if found is None:
            continue
        used = np.flatnonzero(pattern)
        y = scores[np.ix_(used, here)]
        value[here] = found.weights @ y
        base[here] = y[weights[np.asarray(arms)[pattern]] < 0].mean(0)
        degrees_of_freedom[here] = found.degrees_of_freedom
        samples[:, here] = np.einsum("r,srm->sm", found.weights, drawn[:, used][:, :, here])
        if found.degrees_of_freedom:
            variance = ((found.residual_projection @ y) ** 2).sum(0) / found.degrees_of_freedom
            spread = np.sqrt(variance * (found.weights**2).sum())
            samples[:, here] += noise.standard_t(found.degrees_of_freedom, (len(drawn), 1)) * spread
    return summarise(base, base + value, samples), degrees_of_freedom


def fit(arms: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> Fit | None:
    """How a comparison of arms follows from their runs by least squares; None if it does not.

    Runs are compared within seeds where seeds link the arms and leave a degree of freedom, and
    otherwise as if every run had a seed of its own.
    """
    of_arms = (arms[:, None] == np.arange(len(weights))).astype(float)
    of_seeds = (seeds[:, None] == np.unique(seeds)).astype(float)
    for design in (np.hstack([of_arms, of_seeds]), of_arms):
        inverse = np.linalg.pinv(design)
        wanted = np.zeros(design.shape[1])
        wanted[: len(weights)] = weights
        answered = np.allclose(wanted @ inverse @ design, wanted, atol=1e-8)
        degrees_of_freedom = len(arms) - int(np.linalg.matrix_rank(design))
        if answered and (degrees_of_freedom or design is of_arms):
            residual_projection = np.eye(len(arms)) - design @ inverse
            runs = wanted @ inverse
            return Fit(
                np.where(abs(runs) < 1e-12, 0, runs), residual_projection, degrees_of_freedom
            )
    return None


def seed_deviation(arms: Sequence[int], scores: Sequence[float] | np.ndarray) -> float | None:
    """Standard deviation of a run's score between seeds, pooled over arms; None without repeats.

    Args:
        arms: the arm of each run, from 0 on.
        scores: of the runs (runs,).
    """
    count = int(max(arms)) + 1
    own = (np.asarray(arms)[:, None] == np.arange(count)).astype(float)
    degrees_of_freedom = len(arms) - int(np.linalg.matrix_rank(own))
    rest = np.asarray(scores) - own @ np.linalg.pinv(own) @ np.asarray(scores)
    return float(np.sqrt((rest**2).sum() / degrees_of_freedom)) if degrees_of_freedom else None
