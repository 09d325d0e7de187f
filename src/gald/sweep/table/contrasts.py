"""Contrasts between arms, estimated from few seeds and from the images that all runs share.

The score of a run is modelled as the effect of its arm (one way to train), plus the effect of its
seed, plus noise of equal variance in all arms. The noise between seeds is estimated from the
residuals of all arms together: three seeds alone give a poor estimate (2 degrees of freedom), three
seeds of eight arms a good one (14). A bootstrap over seeds does not help: in 100 sweeps of 4 equal
arms and 3 seeds without any effect, it reported an effect 18 times.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference, summarise

ROUNDING = 1e-14  # of sums of scores, which are fractions


class Fit(NamedTuple):
    """Contrast as a weighted sum of runs.

    Attributes:
        weights: weights of the runs (runs,).
        model: what arms and seeds explain of the scores of these runs.
    """

    weights: np.ndarray
    model: "Model"

    @property
    def degrees_of_freedom(self) -> int:
        """Degrees of freedom of the residuals; 0 if no seed was repeated."""
        return self.model.degrees_of_freedom


class Model(NamedTuple):
    """Least squares of the scores of some runs.

    Attributes:
        design: effects of arms, and perhaps of seeds, in each run (runs, effects).
        inverse: its pseudo-inverse (effects, runs).
        degrees_of_freedom: of the residuals.
    """

    design: np.ndarray
    inverse: np.ndarray
    degrees_of_freedom: int

    def residuals(self, scores: np.ndarray) -> np.ndarray:
        """Return what arms and seeds do not explain of the scores (runs, M)."""
        return scores - self.design @ (self.inverse @ scores)


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
    return next(Estimator(arms, seeds, scores, seed).estimate([weights], drawn))


class Estimator:
    """Estimates of many contrasts from the same runs.

    Args:
        arms: arm of each run, from 0 on.
        seeds: training seed of each run.
        scores: scores of the runs on all images (runs, M); nan where a score is not defined.
        seed: seed of the random noise of the training seeds.
    """

    def __init__(
        self, arms: Sequence[int], seeds: Sequence[int], scores: np.ndarray, seed: int = 0
    ) -> None:
        self.arms, self.seeds = np.asarray(arms), np.asarray(seeds)
        self.scores, self.seed = scores, seed
        known = ~np.isnan(scores)
        self._groups = [  # columns that the same runs have, and those runs
            (np.flatnonzero((known == pattern[:, None]).all(0)), np.flatnonzero(pattern))
            for pattern in np.unique(known, axis=1).T
        ]

    def estimate(
        self, contrasts: Iterable[np.ndarray], drawn: np.ndarray, first: int = 0
    ) -> Iterator[tuple[Difference, np.ndarray]]:
        """Estimate weighted sums of arms (A,), one after the other; see `contrast`.

        Args:
            contrasts: weights of the arms in each.
            drawn: scores on each draw of images (S, runs, m), of m columns of the scores.
            first: the first of these columns.
        """
        block = slice(first, first + drawn.shape[-1])
        groups = [
            (own[(own >= block.start) & (own < block.stop)], used) for own, used in self._groups
        ]
        # A draw in which one of the runs has no score counts for none of them.
        absent = [_any_absent(drawn, own - first, used) for own, used in groups]
        for weights in contrasts:
            value, base = np.full((2, self.scores.shape[1]), np.nan)
            degrees_of_freedom = np.zeros(len(value), int)
            samples = np.full((len(drawn), drawn.shape[-1]), np.nan)
            noise = np.random.default_rng(self.seed)
            for (own, used), without in zip(groups, absent, strict=True):
                fitted = fit(self.arms[used], self.seeds[used], weights)
                if fitted is None:
                    continue
                y = self.scores[np.ix_(used, own)]
                value[own] = _exact(fitted.weights @ y)
                base[own] = y[weights[self.arms[used]] < 0].mean(0)
                degrees_of_freedom[own] = fitted.degrees_of_freedom
                sums = np.zeros((len(drawn), len(own)))
                for run, weight in zip(used, fitted.weights, strict=True):
                    if weight:
                        sums += weight * _take(drawn[:, run], own - first)
                if fitted.degrees_of_freedom:
                    variance = (fitted.model.residuals(y) ** 2).sum(0) / fitted.degrees_of_freedom
                    spread = np.sqrt(variance * (fitted.weights**2).sum())
                    # Drawn also for columns outside of this block, so that blocks change nothing.
                    sums += noise.standard_t(fitted.degrees_of_freedom, (len(sums), 1)) * spread
                sums[without] = np.nan
                samples[:, own - first] = _exact(sums)
            a, difference = base[block], value[block]
            found = summarise(a, a + difference, samples)
            yield found._replace(difference=difference), degrees_of_freedom[block]


def _exact(differences: np.ndarray) -> np.ndarray:
    """Return 0 for what is left of equal scores by rounding, so that it has no sign."""
    return np.where(abs(differences) < ROUNDING, 0, differences)


def _any_absent(drawn: np.ndarray, own: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return whether any of some runs has no score, by draw and column (S, columns)."""
    found = np.zeros((len(drawn), len(own)), bool)
    for run in used:
        found |= np.isnan(_take(drawn[:, run], own))
    return found


def _take(table: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return columns of a table (S, m), without a copy if they are all."""
    return table if len(own) == table.shape[-1] else table[:, own]


def fit(arms: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> Fit | None:
    """Express a contrast of arms as a weighted sum of runs by least squares; None if impossible.

    Runs are compared within seeds if the seeds link the arms and leave a degree of freedom.
    Otherwise every run counts as having a seed of its own.
    """
    for with_seeds in (True, False):
        model = _model(tuple(arms.tolist()), tuple(seeds.tolist()), len(weights), with_seeds)
        target = np.zeros(model.design.shape[1])
        target[: len(weights)] = weights
        runs = target @ model.inverse
        estimable = np.allclose(runs @ model.design, target, atol=1e-8)
        if estimable and (model.degrees_of_freedom or not with_seeds):
            runs = np.where(abs(runs) < 1e-12, 0, runs)
            return Fit(runs, model)
    return None


@lru_cache(maxsize=16)
def _model(arms: tuple[int, ...], seeds: tuple[int, ...], count: int, with_seeds: bool) -> Model:
    """Build the model of some runs; it is the same for all contrasts, and takes a while."""
    design = (np.array(arms)[:, None] == np.arange(count)).astype(float)
    if with_seeds:
        seed_design = (np.array(seeds)[:, None] == np.unique(seeds)).astype(float)
        design = np.hstack([design, seed_design])
    inverse = np.linalg.pinv(design)
    degrees_of_freedom = len(arms) - int(np.linalg.matrix_rank(design))
    return Model(design, inverse, degrees_of_freedom)


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
