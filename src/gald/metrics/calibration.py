"""Calibration: are 80% of the pixels with a confidence of 80% predicted correctly?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import Bytes, CountMetric, ratio
from gald.options.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

_ONE = 2**15  # a probability of 1 in fixed point: sums of integers do not depend on their order


class CalibrationError(CountMetric):
    """Expected calibration error of the pixels: the mean gap between confidence and accuracy.

    Pixels are grouped into confidence bins of equal width; ece = sum over bins of n_bin / n *
    |accuracy_bin - mean confidence_bin|. A bin includes its upper edge. Confidences are rounded to
    multiples of 2^-15.

    Paper: "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, Eq. 3

    Args:
        num_classes: number of scored classes.
        bins: number of confidence bins from 0 to 1.

    Shape:
        counts: 3 * bins: pixels, correct ones among them, sum of confidences in units of 2^-15
    """

    name = "ece"
    label = "calibration error"
    higher_is_better = False
    needs_confidence = True

    def __init__(
        self, num_classes: int, bins: Annotated[int, Range(least=1, most=1000)] = 15
    ) -> None:
        super().__init__(num_classes, 3 * bins)
        self.bins = bins

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        if confidence is None:
            raise ValueError("the metric ece needs confidences; predict with confidence=True")
        levels = np.rint(np.clip(confidence, 0, 1) * np.float32(_ONE)).astype(np.int32)
        # One bincount computes three histograms of levels: of wrong, right and void pixels.
        outcome = np.where(mask == VOID, np.uint8(2), (labels == mask).view(np.uint8))
        index = levels + outcome.astype(np.int32) * (_ONE + 1)
        wrong, right, _ = np.bincount(index.ravel(), minlength=3 * (_ONE + 1)).reshape(3, -1)
        level = np.arange(_ONE + 1)
        bin_of_level = np.maximum(-(-level * self.bins // _ONE) - 1, 0)
        return np.stack(
            [
                np.bincount(bin_of_level, weights, minlength=self.bins).astype(np.int64)
                for weights in (wrong + right, right, (wrong + right) * level)
            ]
        )

    def reliability(self, counts: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
        """Return the curve behind the error, for the summed counts (width,).

        Returns:
            for each bin (bins,): its share of the pixels, their accuracy and their mean confidence;
            the last two are nan for a bin without pixels.
        """
        pixels, right, confidence = counts.reshape(3, self.bins).double()
        return pixels / pixels.sum(), right / pixels, confidence / _ONE / pixels

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        pixels, right, confidence = counts.reshape(3, self.bins).double()
        return {"ece": float((right - confidence / _ONE).abs().sum() / pixels.sum())}

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        table = sums.reshape(len(sums), 3, self.bins).astype(np.float64)
        pixels, right, confidence = table.swapaxes(0, 1)
        return {"ece": ratio(abs(right - confidence / _ONE).sum(-1), pixels.sum(-1))}
