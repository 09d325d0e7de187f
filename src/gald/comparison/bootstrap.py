"""Paired bootstrap over images: intervals and p values of the difference between two networks.

In each sample the counts of the drawn images are summed and then scored, because the mIoU of a set
is not the mean of its images' mIoUs. Both networks are scored on the same draws, so the effect of
images that are hard for both cancels. What is drawn is an image, or several that belong together,
see `gald.comparison.units`; below, a unit.

The samples give the variance that the choice of units adds, and Student's t makes the interval of
it. With n units the bootstrap's variance is too small by (n - 1) / n, and a normal distribution is
too narrow: 12 units need t = 2.20 where a normal distribution has 1.96. Percentiles of the samples
have both faults. A second source of chance, the seeds of the trainings, adds its own variance with
its own degrees of freedom:

    difference +- (t(n - 1) V_units + t(f) V_seeds) / sqrt(V_units + V_seeds)

where t is the 0.975 quantile of Student's t, and V_units is n / (n - 1) times that of the samples.
The p value is the level at which an end of the interval is 0. For normal noise the interval covers
95 to 97.5% at any ratio of the two variances; that of Satterthwaite covers 92% with f = 2, which is
two arms with three seeds.

Papers: "Experimental Designs", Cochran and Cox 1950, for the weighted t; "Confidence
intervals for performance estimates in 3D medical image segmentation",
https://arxiv.org/abs/2307.10926, in which parametric intervals agree with those of a bootstrap.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]
Source = tuple[np.ndarray | float, np.ndarray | float]  # variance, degrees of freedom
CONFIDENCE = 0.95
BLOCK_CELLS = 2**21  # maximum number of cells of the largest table in memory: 16 MB
KEPT_CELLS = 2**26  # maximum number of draws that are kept: 64 MB
ROUNDING = 1e-14  # of sums of scores, which are fractions


class Difference(NamedTuple):
    """Two scores, their difference, its interval and p value; arrays (), or (M,) for M scores.

    Interval, error and p value are nan where fewer than two units decide a score.

    Attributes:
        a: score of the first network on all images.
        b: score of the second.
        difference: `b - a`.
        low: lower end of the 95% interval of the difference.
        high: upper end.
        error: standard error of the difference.
        above: confidence that the difference is above 0: 0.5 if it is 0, 0.975 if the interval
            ends at 0.
        p: two-sided p value.
        sources: variance and degrees of freedom of each source of chance, (sources, 2, ...).
    """

    a: np.ndarray
    b: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    above: np.ndarray
    p: np.ndarray
    sources: np.ndarray

    def of(self, place: int) -> "Difference":
        """Return the numbers of one of M scores."""
        return Difference(*(part[..., place] for part in self))

    @property
    def clear(self) -> np.ndarray:
        """Whether the interval excludes 0; False means "inside the noise"."""
        return (self.low > 0) | (self.high < 0)

    def equivalence(self, margin: float) -> np.ndarray:
        """Return the p value of "the difference is at least `margin`", of two one-sided tests.

        Below 0.05 the 90% interval lies within the margins.

        Paper: "A comparison of the two one-sided tests procedure and the power approach",
        Schuirmann 1987.
        """
        inside = margin - abs(self.difference)
        tail = _tail(abs(inside), self.sources)
        return np.where(inside > 0, tail, 1 - tail)


def estimated(a: np.ndarray, difference: np.ndarray, *sources: Source) -> Difference:
    """Return the difference of two scores, with its interval from sources of chance.

    Args:
        a: score of the first network on all images, () or (M,).
        difference: score of the second minus that of the first.
        sources: variance of the difference and its degrees of freedom, of each source.
    """
    a, difference = np.asarray(a, float), np.asarray(difference, float)
    # What is left of equal scores by rounding has no sign.
    difference = np.where(abs(difference) < ROUNDING, 0, difference)
    parts = [[np.broadcast_to(part, difference.shape) for part in one] for one in sources]
    table = np.array(parts, float)
    table[:, 0] = np.where(table[:, 0] < ROUNDING**2, 0, table[:, 0])
    error = np.sqrt(table[:, 0].sum(0))
    reach = np.where(np.isnan(difference), np.nan, _reach((1 - CONFIDENCE) / 2, table))
    tail = np.where(np.isnan(difference), np.nan, _tail(abs(difference), table))
    above = np.where(difference < 0, tail, 1 - tail)
    return Difference(
        a,
        a + difference,
        difference,
        difference - reach,
        difference + reach,
        error,
        above,
        np.minimum(1, 2 * tail),
        table,
    )


def _reach(tail: np.ndarray | float, sources: np.ndarray) -> np.ndarray:
    """Return the distance that is exceeded on one side with probability `tail`; 0 if certain."""
    from scipy.special import stdtrit  # takes a third of a second

    variance, freedom = sources[:, 0], sources[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A source without variance adds nothing, whatever its degrees of freedom.
        widened = np.where(variance == 0, 0, -stdtrit(freedom, tail) * variance).sum(0)
        whole = variance.sum(0)
        return np.where(whole == 0, 0, widened / np.sqrt(whole))


def _tail(distance: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return the probability that chance exceeds a distance (...) on one side: 0.5 at 0."""
    variance = sources[:, 0].sum(0)
    low, high = np.full(variance.shape, -700.0), np.full(variance.shape, np.log(0.5))
    for _ in range(60):  # halves of the logarithm of the probability
        middle = (low + high) / 2
        farther = _reach(np.exp(middle), sources) > distance
        low, high = np.where(farther, middle, low), np.where(farther, high, middle)
    tail = np.where(distance == 0, 0.5, np.where(variance == 0, 0.0, np.exp(high)))
    return np.where(np.isnan(variance) | np.isnan(distance), np.nan, tail)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Compute the IoU (..., K) from hits, true pixels and predicted pixels (..., 3, K).

    It is nan where a class has neither true nor predicted pixels.
    """
    hits, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return hits / (true + predicted - hits)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Average `class_iou` over the classes that occur, (...,): the mIoU of results.json."""
    return _mean(class_iou(counts))


def true_class_iou(counts: np.ndarray) -> np.ndarray:
    """Compute the IoU (..., K) of the classes with true pixels; nan for the others.

    In a draw without a rare class, `class_iou` is 0 for a network with one false pixel of it, and
    nan for a network without: an equal network would be worse by 1/K. Comparisons therefore leave
    out such a class for all networks.
    """
    return np.where(np.asarray(counts)[..., 1, :] > 0, class_iou(counts), np.nan)


def true_mean_iou(counts: np.ndarray) -> np.ndarray:
    """Average `true_class_iou` over the classes with true pixels, (...,).

    It equals `mean_iou` unless a class is predicted that no image has.
    """
    return _mean(true_class_iou(counts))


def _mean(iou: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.nansum(iou, -1) / np.count_nonzero(~np.isnan(iou), -1)


def paired_bootstrap(
    counts_a: np.ndarray, counts_b: np.ndarray, score: Score, samples: int = 10_000, seed: int = 0
) -> Difference:
    """Estimate the difference of two networks by drawing images with replacement.

    Memory use is `samples` scores and some tens of MB, for any number of images. The same seed
    draws the same images for all counts with the same number of images.

    Args:
        counts_a: counts of the first network per image or other unit, integers (N, ...).
        counts_b: counts of the second network, for the same units in the same order.
        score: function from counts summed over images, (S, ...), to scores (S,) or (S, M); nan
            where a score is undefined. A score of a class is then nan for both networks in the
            same draws: its interval counts only the images that have it.
        samples: number of times that N images are drawn.
        seed: seed of the draws.

    Raises:
        ValueError: the counts differ in shape, there are fewer than 2 images, or no samples.
    """
    a, b = _check(counts_a, counts_b, samples)
    drawn = []
    for weights in _draws(len(a), len(a), samples, seed, a[0].size):
        drawn.append(score(_sums(weights, b)) - score(_sums(weights, a)))
    whole = np.ones((1, len(a)))
    units = np.minimum(units_with(score(a)), units_with(score(b)))
    chance = variance_of_units(np.concatenate(drawn), units)
    first, second = (score(_sums(whole, counts))[0] for counts in (a, b))
    return estimated(first, second - first, chance)._replace(b=np.asarray(second))


def resampled(counts: np.ndarray, score: Score, samples: int = 10_000, seed: int = 0) -> np.ndarray:
    """Score sets of images that are drawn with replacement.

    Args:
        counts: counts per image, integers (N, ...).
        score: as in `paired_bootstrap`.
        samples: number of times that N images are drawn.
        seed: seed of the draws; the same seed draws the same images for all counts of N images.

    Returns:
        (samples,) or (samples, M).

    Raises:
        ValueError: as `paired_bootstrap`.
    """
    _check(counts, counts, samples)
    return np.concatenate(list(Draws(len(counts), samples, seed).score(counts, score)))


class Draws:
    """Images drawn with replacement, the same for the counts of any number of networks.

    How often each image was drawn is kept, if it fits into some tens of MB, and drawn again
    otherwise.

    Args:
        images: number of images, N.
        samples: number of times that N images are drawn.
        seed: seed of the draws, as of `resampled`.

    Raises:
        ValueError: there are fewer than 2 images, or no samples.
    """

    def __init__(self, images: int, samples: int, seed: int = 0) -> None:
        if images < 2:
            raise ValueError(
                f"{images} images are too few to draw from; evaluate at least 2 images"
            )
        if samples < 1:
            raise ValueError(f"samples is {samples}; draw at least 1, better 1000")
        self.images, self.samples, self.seed = images, samples, seed
        self._kept = self._keep() if images * samples <= KEPT_CELLS else None

    def score(
        self, counts: np.ndarray, score: Score, samples: int | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the scores of the drawn sets, in blocks of samples.

        Args:
            counts: counts per image, integers (N, ...).
            score: function from summed counts (S, ...) to the scores (S, ...).
            samples: number of samples; None scores all of them.
        """
        samples = self.samples if samples is None else min(samples, self.samples)
        exact = np.asarray(counts, np.float64)
        for weights in self._weights(samples, exact[0].size):
            yield score(_sums(weights, exact))

    def _weights(self, samples: int, cells: int) -> Iterator[np.ndarray]:
        """Yield how often each image was drawn (S, N), for the first samples."""
        if self._kept is None:
            yield from _draws(self.images, self.images, samples, self.seed, cells)
            return
        block = _block(self.images, cells)
        for start in range(0, samples, block):
            yield self._kept[start : min(start + block, samples)].astype(np.float64)

    def _keep(self) -> np.ndarray:
        """Return how often each image was drawn, one byte each."""
        kept = np.empty((self.samples, self.images), np.uint8)  # 256 times: a chance of 1e-507
        start = 0
        for weights in _draws(self.images, self.images, self.samples, self.seed, 1):
            kept[start : start + len(weights)] = weights
            start += len(weights)
        return kept


def units_with(scores: np.ndarray) -> np.ndarray:
    """Count the units that have a score (M,) or (), from the scores of each unit (N, M) or (N,)."""
    return np.count_nonzero(~np.isnan(scores), 0)


def variance_of_units(
    drawn: np.ndarray, units: np.ndarray | int, elsewhere: np.ndarray | float = 0
) -> Source:
    """Return the variance that the choice of units adds, and its degrees of freedom.

    Args:
        drawn: sampled differences (S, ...); nan where a sample has none.
        units: number of units that decide each score (...); below 2 the variance is nan.
        elsewhere: part of the variance that another source of chance has already (...).
    """
    known = ~np.isnan(drawn)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = known.sum(0)
        centre = np.where(known, drawn, 0).sum(0) / count
        variance = (np.where(known, drawn - centre, 0) ** 2).sum(0) / count
        variance = np.maximum(variance - elsewhere, 0)
        freedom = np.asarray(units, float) - 1
        return np.where(freedom > 0, variance * (freedom + 1) / freedom, np.nan), freedom


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p values (M,) for M tests at once; nan stays nan and does not count as a test.

    If only adjusted values below 0.05 are accepted, the chance of any false alarm is under 5%.

    Paper: "A simple sequentially rejective multiple test procedure", Holm 1979, Sec. 3.
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # nan sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _check(a: np.ndarray, b: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape:
        raise ValueError(
            f"counts of shape {a.shape} and {b.shape} cannot be paired; give counts of the same "
            "images and classes for both networks"
        )
    if a.ndim < 2 or len(a) < 2:
        raise ValueError(
            f"counts of shape {a.shape} have no two images to draw from; evaluate at least 2 images"
        )
    if samples < 1:
        raise ValueError(f"samples is {samples}; draw at least 1, better 1000")
    # Double precision, because BLAS can sum it; sums of counts are exact up to 9e15.
    return np.asarray(a, np.float64), np.asarray(b, np.float64)


def _draws(
    items: int, draws: int, samples: int, seed: int | np.random.SeedSequence, cells: int
) -> Iterator[np.ndarray]:
    """Yield how often each item was drawn, (S, items), for all samples in blocks of S."""
    generator = np.random.default_rng(seed)
    block = _block(max(items, draws), cells)
    for start in range(0, samples, block):
        size = min(block, samples - start)
        chosen = generator.integers(items, size=(size, draws))
        chosen += items * np.arange(size)[:, None]
        counted = np.bincount(chosen.ravel(), minlength=size * items)
        yield counted.reshape(size, items).astype(np.float64)


def _block(items: int, cells: int) -> int:
    """Return the number of samples that are summed at once."""
    return max(1, BLOCK_CELLS // max(items, cells))


def _sums(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum counts (N, ...) with weights (S, N): (S, ...)."""
    return (weights @ counts.reshape(len(counts), -1)).reshape(len(weights), *counts.shape[1:])
