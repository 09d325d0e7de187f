"""Trimap curve: the share of wrong pixels by distance to the nearest class boundary."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import Bytes, CountMetric, Curve, pair_counts, ratio
from gald.metrics.contour import contour, distance_to, width_label
from gald.options.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor


class Trimap(CountMetric):
    """Error rate of the pixels within 1, 2, ... pixels of a true class boundary.

    A pixel that touches another class has distance 1. Any other pixel has 1 plus its distance to
    the nearest such pixel, rounded up. Void pixels are not scored and form no boundary.

    Paper: "Robust Higher Order Potentials for Enforcing Label Consistency", IJCV 2009,
    https://doi.org/10.1007/s11263-008-0202-0, which measures in bands around the boundary.

    Args:
        num_classes: number of scored classes.
        farthest: largest distance in pixels; pixels farther away form one more entry, `beyond`.

    Shape:
        counts: 2 * (farthest + 1): pixels by distance, then the wrong ones among them
    """

    name = "trimap"
    label = "error near boundaries"
    higher_is_better = False
    curves = (
        Curve(
            "trimap/",
            "Error near boundaries",
            "distance to the nearest boundary, px",
            ("1", "2", "3", "5", "8", "12", "20", "40", "beyond"),
        ),
    )
    headlines = ("trimap/3",)
    place_label = staticmethod(width_label)

    def __init__(
        self, num_classes: int, farthest: Annotated[int, Range(least=1, most=254)] = 40
    ) -> None:
        if not 1 <= farthest <= 254:
            raise ValueError(f"farthest is {farthest} pixels; choose 1 to 254")
        super().__init__(num_classes, 2 * (farthest + 1))
        self.farthest = farthest

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        away = np.ceil(distance_to(contour(mask)))
        place = np.minimum(away, self.farthest).astype(np.uint8)
        outcome = np.where(mask == VOID, np.uint8(2), (labels != mask).view(np.uint8))
        right, wrong = pair_counts(outcome, place)[:2, : self.farthest + 1]
        return np.stack([right + wrong, wrong])

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        pixels, wrong = counts.reshape(2, -1).double()
        within = wrong[:-1].cumsum(0) / pixels[:-1].cumsum(0)
        rates = {f"trimap/{px}": float(rate) for px, rate in enumerate(within, start=1)}
        return rates | {"trimap/beyond": float(wrong[-1] / pixels[-1])}

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        pixels, wrong = sums.reshape(len(sums), 2, -1).astype(np.float64).swapaxes(0, 1)
        within = ratio(wrong[:, :-1].cumsum(1), pixels[:, :-1].cumsum(1))
        rates = {f"trimap/{px}": rate for px, rate in enumerate(within.T, start=1)}
        return rates | {"trimap/beyond": ratio(wrong[:, -1], pixels[:, -1])}
