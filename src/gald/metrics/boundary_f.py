"""Boundary F-score: the share of contour pixels that have a match within a given distance."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import (
    Bytes,
    CountMetric,
    Curve,
    columns,
    mean_of_known,
    named,
    ratio,
    void_where,
)
from gald.metrics.contour import (
    WIDTHS,
    check_widths,
    contour,
    diagonal,
    width_index,
    width_label,
)
from gald.options.ranges import Positives

if TYPE_CHECKING:
    from torch import Tensor

_ONE = 2**32  # a score of 1 in fixed point: sums of integers do not depend on their order


# How the search for matches is divided; the counts do not depend on it.
_AT_ONCE = 2**16  # pairs of a pixel and an offset that are tried at once
_IN_TURN = 8  # offsets that are tried before the matched pixels are taken out
_MANY = 200  # offsets that are worth a look at the blocks first
_BLOCK = 8  # side of a block in pixels


class BoundaryF(CountMetric):
    """F-score of contours, from precision and recall over all images, and the mean over classes.

    A contour pixel of a class touches another class (among its eight neighbours). It is matched if
    the other contour has a pixel of the same class within the width, in Euclidean distance. Void
    has no contour, and predictions on void are treated as void.

    Paper: "What is a good evaluation measure for semantic segmentation?", BMVC 2013,
    https://doi.org/10.5244/C.27.32; its width is 0.75% of the diagonal. The paper averages over
    images; here matches are summed, so an image counts in proportion to its contour.

    Args:
        num_classes: number of scored classes, K.
        widths: 1 or more: in pixels; below 1: as a share of the diagonal, rounded up.

    Shape:
        counts: K * (2 + 2 * widths): true and predicted contour pixels, then the matched true ones
        of each width, then the matched predicted ones of each width
    """

    name = "boundary_f"
    label = "boundary F"
    curves = (Curve("boundary_f/", "Boundary F-score", WIDTHS),)
    headlines = ("boundary_f/3",)
    place_label = staticmethod(width_label)

    def __init__(self, num_classes: int, widths: Positives = (1, 3, 5, 0.0075)) -> None:
        super().__init__(num_classes, num_classes * (2 + 2 * len(widths)))
        self.widths = check_widths(widths)

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        labels = void_where(mask == VOID, labels)
        pixels = _pixels(self.widths, mask.shape)
        sides = [self._contour(x, max(pixels)) for x in (mask, labels)]
        return _matches(*sides, pixels, self.num_classes)

    @staticmethod
    def _contour(labels: Bytes, reach: int) -> "_Contour":
        """Return the contour pixels of all classes."""
        places = np.flatnonzero(contour(labels))
        return _Contour(places, labels.ravel()[places, None], labels.shape, reach)

    @override
    def places(self, key: str) -> NDArray[np.intp]:
        width, widths = width_index(self.widths, key), len(self.widths)
        by_class = np.arange(self.width).reshape(self.num_classes, -1)
        return by_class[:, [0, 1, 2 + width, 2 + widths + width]].ravel()

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        per_class = f_scores(counts.reshape(self.num_classes, -1).double().numpy())
        result = {}
        for width, column in zip(self.widths, per_class.T, strict=True):
            key = f"{self.name}/{width:g}"
            result[key] = float(np.nanmean(column)) if np.isfinite(column).any() else math.nan
            result |= named(key, class_names, column)
        return result

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        counts = sums.reshape(len(sums), self.num_classes, -1).astype(np.float64)
        return _by_width(self.name, self.widths, class_names, f_scores(counts))

    @override
    def true_classes_only(self, sums: NDArray) -> NDArray:
        counts = sums.reshape(len(sums), self.num_classes, -1)
        return np.where(counts[..., :1] > 0, counts, 0).reshape(sums.shape)


class BoundaryFDecoupleSegNets(CountMetric):
    """Boundary F-score as measured by GALD's authors: mean over classes of means over images.

    Differences from `BoundaryF`: a class that is neither true nor predicted scores 1, so rare
    classes score high; void is background, so a class has a contour where it meets void; a contour
    pixel is one that differs from its neighbour to the right, below, or diagonally below right, so
    it can lie just outside of the class.

    Reference: lxtGH/DecoupleSegNets utils/f_boundary.py, with the widths of its train.py.

    Args:
        num_classes: number of scored classes, K.
        widths: 1 or more: in pixels; below 1: as a share of the diagonal, rounded up.

    Shape:
        counts: 1 + K * widths: number of images, then sums of scores, each in units of 2^-32
    """

    name = "boundary_f_authors"
    label = "boundary F of DecoupleSegNets"
    curves = (Curve("boundary_f_authors/", "Boundary F-score of DecoupleSegNets", WIDTHS),)
    place_label = staticmethod(width_label)

    def __init__(
        self, num_classes: int, widths: Positives = (0.0005, 0.001875, 0.00375, 0.005)
    ) -> None:
        super().__init__(num_classes, 1 + num_classes * len(widths))
        self.widths = check_widths(widths)

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        labels = void_where(mask == VOID, labels)
        pixels = _pixels(self.widths, mask.shape)
        sides = [self._contour(x, max(pixels)) for x in (mask, labels)]
        scores = f_scores(_matches(*sides, pixels, self.num_classes), absent=1.0)
        return np.append(1, np.rint(scores * _ONE).astype(np.int64))

    @staticmethod
    def _contour(labels: Bytes, reach: int) -> "_Contour":
        """Return the pixels that differ from a neighbour, with the classes of all four."""
        height, width = labels.shape
        right = np.zeros(labels.shape, np.bool_)  # differs from the right neighbour
        np.not_equal(labels[:, :-1], labels[:, 1:], out=right[:, :-1])
        edge = right.copy()
        edge[:-1] |= right[1:]
        edge[:-1] |= labels[:-1] != labels[1:]
        places = np.flatnonzero(edge)
        row, column = np.divmod(places, width)
        below = places + width * (row < height - 1)
        beside = column < width - 1
        near = np.stack([places, places + beside, below, below + beside], axis=-1)
        return _Contour(places, labels.ravel()[near], labels.shape, reach)

    @override
    def places(self, key: str) -> NDArray[np.intp]:
        by_class = np.arange(1, self.width).reshape(self.num_classes, -1)
        return np.append(0, by_class[:, width_index(self.widths, key)])

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        images, sums = counts[0].double(), counts[1:].double()
        per_class = (sums / _ONE / images).reshape(self.num_classes, -1)
        result = {}
        for width, column in zip(self.widths, per_class.T, strict=True):
            key = f"{self.name}/{width:g}"
            result[key] = float(column.mean())
            result |= named(key, class_names, column)
        return result

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        images, scores = sums[:, :1].astype(np.float64), sums[:, 1:].astype(np.float64)
        per_class = ratio(scores / _ONE, images).reshape(len(sums), self.num_classes, -1)
        return _by_width(self.name, self.widths, class_names, per_class)


def _by_width(
    name: str, widths: Sequence[float], class_names: Sequence[str], per_class: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean and the score of each class by width, from scores (S, K, widths)."""
    means = mean_of_known(per_class, 1)
    result = {}
    for i, width in enumerate(widths):
        result[f"{name}/{width:g}"] = means[:, i]
        result |= columns(f"{name}/{width:g}", class_names, per_class[..., i])
    return result


def f_scores(counts: NDArray, absent: float = math.nan) -> NDArray[np.float64]:
    """Compute F-scores (..., widths) from counts (..., 2 + 2 * widths) in `BoundaryF`'s layout.

    Where only one of the two has a contour nothing matches, and the score is 0.

    Args:
        counts: true and predicted contour pixels, matched true ones, matched predicted ones.
        absent: score if there is neither true nor predicted contour.
    """
    widths = (counts.shape[-1] - 2) // 2
    true, predicted = counts[..., :1], counts[..., 1:2]
    with np.errstate(invalid="ignore"):
        recall = counts[..., 2 : 2 + widths] / true
        precision = counts[..., 2 + widths :] / predicted
        mean = np.nan_to_num(2 * precision * recall / (precision + recall))
    return np.where((true == 0) & (predicted == 0), absent, mean)


def _pixels(widths: Sequence[float], shape: tuple[int, ...]) -> list[int]:
    return [math.ceil(w * diagonal(shape)) if w < 1 else int(w) for w in widths]


def _matches(
    true: "_Contour", predicted: "_Contour", pixels: Sequence[int], num_classes: int
) -> NDArray[np.int64]:
    """Count pixels and matches (K, 2 + 2 * widths) of two contours.

    The search tries the nearest offsets first, so most pixels find their match at once. It handles
    all classes together, whereas distance maps would need one per class.
    """
    sides = (true, predicted)
    counts = [np.bincount(side.classes, minlength=num_classes)[:, None] for side in sides]
    counts += [a.find(b, pixels, num_classes) for a, b in (sides, sides[::-1])]
    return np.concatenate(counts, axis=1)


class _Contour:
    """Contour pixels of all classes, as indices into a padded image of four bytes per pixel.

    Args:
        places: contour pixels (N,), as indices into the flat image.
        classes: classes with a contour at each of them (N, 1 to 4), or void.
        shape: height and width of the image.
        reach: how far a search may lead outside of the image.
    """

    def __init__(
        self, places: NDArray[np.int64], classes: Bytes, shape: tuple[int, ...], reach: int
    ) -> None:
        height, width = shape
        self.stride = width + 2 * reach
        rows, columns = np.divmod(places, width)
        padded = (rows + reach) * self.stride + columns + reach
        self.image = np.full((height + 2 * reach) * self.stride, 0xFFFFFFFF, np.uint32)
        self.image.view(np.uint8).reshape(-1, 4)[padded, : classes.shape[1]] = classes
        counted = classes != VOID
        for layer in range(1, classes.shape[1]):  # a class counts once per pixel
            counted[:, layer] &= (classes[:, layer, None] != classes[:, :layer]).all(1)
        pixel, layer = np.nonzero(counted)
        self.places, self.classes = padded[pixel], classes[pixel, layer]

    def find(self, other: "_Contour", pixels: Sequence[int], num_classes: int) -> NDArray[np.int64]:
        """Count the pixels (K, widths) that have a pixel of their class on the other contour."""
        matched = np.zeros((num_classes, len(pixels)), np.int64)
        possible = np.isin(self.classes, np.unique(other.classes))
        places, classes = self.places[possible], self.classes[possible]
        squares = np.square(pixels)
        done = -1
        for square in np.unique(squares):  # a pixel counts for this width and all larger ones
            steps = _offsets(done, int(square), self.stride)
            done = int(square)
            if len(steps) > _MANY:
                possible = other._may_have(places, classes, max(pixels))
                places, classes = places[possible], classes[possible]
            while len(places) and len(steps):
                # The fewer pixels are left, the more offsets are tried at once.
                at_once = max(1, _AT_ONCE // len(places))
                now = max(at_once, _IN_TURN)
                wanted = classes * np.uint32(0x01010101)
                hit = np.zeros(len(places), np.bool_)
                for first in range(0, min(now, len(steps)), at_once):
                    tried = steps[first : min(first + at_once, now), None]
                    # A byte of `differ` is zero where the other contour has the wanted class.
                    differ = other.image[places + tried] ^ wanted
                    zero = (differ - np.uint32(0x01010101)) & ~differ & np.uint32(0x80808080)
                    hit |= zero.any(0)
                hits = np.bincount(classes[hit], minlength=num_classes)
                matched += hits[:, None] * (squares >= square)
                places, classes, steps = places[~hit], classes[~hit], steps[now:]
        return matched

    def _may_have(self, places: NDArray[np.int64], classes: Bytes, reach: int) -> NDArray[np.bool_]:
        """Return false for the pixels that are surely farther than `reach` from their class.

        The image is divided into blocks, and a pixel asks only which blocks have its class.
        """
        used, index = np.unique(self.classes, return_inverse=True)
        size = -(-len(self.image) // self.stride // _BLOCK), -(-self.stride // _BLOCK)
        blocks = np.zeros((len(used), *size), np.uint8)
        blocks[index, *self._blocks(self.places)] = 1
        side = 2 * -(-reach // _BLOCK) + 1
        near = np.zeros((256, *size), np.bool_)
        for k, present in zip(used, blocks, strict=True):
            near[k] = cv2.dilate(present, np.ones((side, side), np.uint8))
        return near[classes, *self._blocks(places)]

    def _blocks(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        rows, columns = np.divmod(places, self.stride)
        return rows // _BLOCK, columns // _BLOCK


def _offsets(above: int, most: int, stride: int) -> NDArray[np.int64]:
    """List the offsets with a squared length above one and at most another, the nearest first."""
    reach = math.isqrt(most)
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    square, offset = (down**2 + right**2).ravel(), (down * stride + right).ravel()
    order = np.argsort(square, kind="stable")
    first, last = np.searchsorted(square[order], (above, most), "right")
    return offset[order[first:last]]
