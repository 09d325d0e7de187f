"""Paired bootstrap over images: intervals and p values of the difference between two networks.

In each sample the counts of the drawn images are summed and then scored, because the mIoU of a set
is not the mean of its images' mIoUs. Both networks are scored on the same draws, so the effect of
images that are hard for both cancels.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]
CONFIDENCE = 0.95
BLOCK_CELLS = 2**21  # maximum number of cells of the largest table in memory: 16 MB
KEPT_CELLS = 2**26  # maximum number of draws that are kept: 64 MB


class Difference(NamedTuple):
    """Two scores, their difference, its interval and p value; arrays (), or (M,) for M scores.

    Attributes:
        a: score of the first network on all images.
        b: score of the second.
        difference: `b - a`.
        low: lower end of the 95% percentile interval of the difference.
        high: upper end.
        error: standard error of the difference.
        above: share of the samples in which the difference is above 0.
        p: two-sided p value: twice the share of samples on the rarer side of 0, at least
            `2 / (samples + 1)`.
    """

    a: np.ndarray
    b: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    above: np.ndarray
    p: np.ndarray

    @property
    def clear(self) -> np.ndarray:
        """Whether the interval excludes 0; False means "inside the noise"."""
        return (self.low > 0) | (self.high < 0)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Compute the IoU (..., K) from hits, true pixels and predicted pixels (..., 3, K).

    It is nan where a class has neither true nor predicted pixels.
    """
    hits, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    with np.errstate(invalid="ignore"):
        return hits / (true + predicted - hits)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Average `class_iou` over the classes that occur, (...,)."""
    iou = class_iou(counts)
    with np.errstate(invalid="ignore"):
        return np.nansum(iou, -1) / np.count_nonzero(~np.isnan(iou), -1)


def paired_bootstrap(
    counts_a: np.ndarray, counts_b: np.ndarray, score: Score, samples: int = 10_000, seed: int = 0
) -> Difference:
    """Estimate the difference of two networks by drawing images with replacement.

    Memory use is `samples` scores and some tens of MB, for any number of images. The same seed
    draws the same images for all counts with the same number of images.

    Args:
        counts_a: counts of the first network per image, integers (N, ...).
        counts_b: counts of the second network, for the same images in the same order.
        score: function from counts summed over images, (S, ...), to scores (S,) or (S, M); nan
            where a score is undefined.
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
    return summarise(score(_sums(whole, a))[0], score(_sums(whole, b))[0], np.concatenate(drawn))


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

    def _keep(self) -> np.ndarray | None:
        """Return how often each image was drawn, one byte each; None if a byte is too small."""
        kept = np.empty((self.samples, self.images), np.uint8)
        start = 0
        for weights in _draws(self.images, self.images, self.samples, self.seed, 1):
            if weights.max() > 255:
                return None
            kept[start : start + len(weights)] = weights
            start += len(weights)
        return kept


def summarise(a: np.ndarray, b: np.ndarray, drawn: np.ndarray) -> Difference:
    """Summarise sampled differences (S, ...) of the scores `a` and `b` on all images, (...)."""
    columns = np.array([_summary(column) for column in drawn.reshape(len(drawn), -1).T])
    a, b = np.asarray(a), np.asarray(b)
    low, high, error, above, p = columns.T.reshape(5, *a.shape)
    return Difference(a, b, b - a, low, high, error, above, p)


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


def _summary(drawn: np.ndarray) -> tuple[float, ...]:
    """Return interval ends, standard error, share above 0 and p value for samples of one score."""
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return (np.nan,) * 5
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    rarer = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (rarer + 1) / (len(drawn) + 1))
    return low, high, drawn.std(), np.mean(drawn > 0), p
