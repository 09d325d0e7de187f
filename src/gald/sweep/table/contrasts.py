"""Contrasts between arms, estimated from few seeds and from the images that all runs share.

The score of a run is modelled as the effect of its arm (one way to train), plus the effect of its
seed, plus noise of equal variance in all arms. The noise between seeds is estimated from the
residuals of all arms together: three seeds alone give a poor estimate (2 degrees of freedom), three
seeds of eight arms a good one (14). A bootstrap over seeds does not help: in 100 sweeps of 4 equal
arms and 3 seeds without any effect, it reported an effect 18 times. `gald.comparison.bootstrap` has
the formula that adds the chance of images to that of seeds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference, estimated, variance_of_units

FEW_DRAWS = 500  # are enough where the draws of many runs are pooled


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


@dataclass(frozen=True, eq=False)
class Model:
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

    def variance(self, scores: np.ndarray) -> np.ndarray:
        """Return the variance of one run that seeds cause (M,); 0 if no seed was repeated."""
        return (self.residuals(scores) ** 2).sum(0) / max(1, self.degrees_of_freedom)


class Estimator:
    """Estimates of many contrasts from the same runs.

    Args:
        arms: arm of each run, from 0 on.
        seeds: training seed of each run; runs with the same seed are compared with each other.
        scores: scores of the runs on all images (runs, M); nan where a score is not defined.
        units: number of units of the bootstrap that decide each score (M,), see `Units`.
    """

    def __init__(
        self, arms: Sequence[int], seeds: Sequence[int], scores: np.ndarray, units: np.ndarray
    ) -> None:
        self.arms, self.seeds = np.asarray(arms), np.asarray(seeds)
        self.scores, self.units = scores, np.broadcast_to(units, scores.shape[1])
        known = ~np.isnan(scores)
        self._groups = [  # columns that the same runs have, and those runs
            (np.flatnonzero((known == pattern[:, None]).all(0)), np.flatnonzero(pattern))
            for pattern in np.unique(known, axis=1).T
        ]

    def estimate(
        self, contrasts: Iterable[np.ndarray], drawn: np.ndarray, first: int = 0
    ) -> Iterator[tuple[Difference, np.ndarray]]:
        """Estimate weighted sums of arms, with the chance of images and of training seeds.

        The variance from the seeds is that of the residuals, pooled over all arms. The variance
        from the images is that of the contrast over the draws, which all runs share, less the part
        that differs from seed to seed: the residuals contain it already. Without a repeated seed
        the interval covers the images only, and the degrees of freedom are 0.

        Args:
            contrasts: weights of the arms (A,) in each; their sum is 0.
            drawn: scores on each draw of images (S, runs, m), of m columns of the scores.
            first: the first of these columns.

        Yields:
            for each the difference, arrays (m,), where `a` is the mean run of the arms with
            negative weights; and the degrees of freedom of the seeds (m,). nan where an arm has
            no score.
        """
        block = slice(first, first + drawn.shape[-1])
        groups = [
            (own[(own >= block.start) & (own < block.stop)], used) for own, used in self._groups
        ]
        # A draw in which one of the runs has no score counts for none of them.
        absent = [_any_absent(drawn, own - first, used) for own, used in groups]
        of_runs = [
            lru_cache(partial(_variance_of_runs, drawn, own - first, used, without))
            for (own, used), without in zip(groups, absent, strict=True)
        ]
        for weights in contrasts:
            value, base, variance = np.full((3, self.scores.shape[1]), np.nan)
            shared = np.zeros(drawn.shape[-1])
            degrees_of_freedom = np.zeros(len(value), int)
            samples = np.full((len(drawn), drawn.shape[-1]), np.nan)
            for (own, used), without, of_run in zip(groups, absent, of_runs, strict=True):
                fitted = fit(self.arms[used], self.seeds[used], weights)
                if fitted is None:
                    continue
                y = self.scores[np.ix_(used, own)]
                value[own] = fitted.weights @ y
                base[own] = y[weights[self.arms[used]] < 0].mean(0)
                degrees_of_freedom[own] = fitted.degrees_of_freedom
                sums = np.zeros((len(drawn), len(own)))
                for run, weight in zip(used, fitted.weights, strict=True):
                    if weight:
                        sums += weight * _take(drawn[:, run], own - first)
                sums[without] = np.nan
                samples[:, own - first] = sums
                of_seeds, squares = fitted.model.variance(y), (fitted.weights**2).sum()
                variance[own] = of_seeds * squares
                shared[own - first] = np.minimum(of_run(fitted.model), of_seeds) * squares
            freedom = degrees_of_freedom[block]
            images = variance_of_units(samples, self.units[block], shared)
            seeds = np.where(freedom, variance[block], 0), np.where(freedom, freedom, np.inf)
            yield estimated(base[block], value[block], images, seeds), freedom


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


def _variance_of_runs(
    drawn: np.ndarray, own: np.ndarray, used: np.ndarray, absent: np.ndarray, model: Model
) -> np.ndarray:
    """Return the variance over draws that arms and seeds do not explain, of one run (columns,)."""
    found = np.zeros(len(own))
    if not model.degrees_of_freedom:
        return found
    for place, column in enumerate(own):
        known = np.flatnonzero(~absent[:, place])[:FEW_DRAWS]
        scores = drawn[np.ix_(known, used, [column])][..., 0].T
        if len(known):
            residuals = model.residuals(scores - scores.mean(1, keepdims=True))
            found[place] = (residuals**2).sum() / len(known) / model.degrees_of_freedom
    return found


class Deviation(NamedTuple):
    """Standard deviation of a score between training seeds, in the unit of the score.

    Attributes:
        paired: what remains if runs of one seed are compared with each other: the deviation of a
            difference of two runs of one seed is `sqrt(2)` times this. It decides what a sweep can
            detect. It equals `unpaired` if the arms have no seeds in common.
        unpaired: of one arm, pooled over arms.
        degrees_of_freedom: of `paired`.
    """

    paired: float
    unpaired: float
    degrees_of_freedom: int


def seed_deviation(
    arms: Sequence[int], seeds: Sequence[int], scores: Sequence[float] | np.ndarray
) -> Deviation | None:
    """Return the standard deviation of scores between seeds; None if no arm has two seeds.

    Args:
        arms: arm of each run, from 0 on.
        seeds: training seed of each run.
        scores: score of each run (runs,); runs with nan are left out.
    """
    y = np.asarray(scores, float)
    known = ~np.isnan(y)
    key = tuple(np.asarray(arms)[known].tolist()), tuple(np.asarray(seeds)[known].tolist())
    if not known.any():
        return None
    one, both = (_model(*key, int(max(arms)) + 1, with_seeds) for with_seeds in (False, True))
    if not one.degrees_of_freedom:
        return None
    used = both if both.degrees_of_freedom else one
    paired, unpaired = (float(np.sqrt(model.variance(y[known]))) for model in (used, one))
    return Deviation(paired, unpaired, used.degrees_of_freedom)
