"""Base class of all metrics: an image becomes integer counts, and summed counts become scores."""

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gald.data.labels import VOID

if TYPE_CHECKING:  # torch takes seconds to import, and tables of scores do without it
    from torch import Tensor

    from gald.inference import LabelMap
    from gald.metrics.state import SummedCounts

Bytes = NDArray[np.uint8]


class Curve(NamedTuple):
    """Scores along a quantity; their keys have a common prefix.

    Attributes:
        prefix: prefix of the keys, such as `boundary_f/`; the rest is the place on the curve, such
            as `3`. The key of a single class has one more part: `boundary_f/3/road`.
        title: what is measured.
        along: the quantity and its unit.
        shown: places to draw; empty for all.
    """

    prefix: str
    title: str
    along: str
    shown: tuple[str, ...] = ()


class CountMetric(ABC):
    """Base class of a metric that sums the count vectors of images.

    A metric sets `name` and `label`, passes its `width` to this constructor, and implements
    `count_arrays` and `scores`; with `scores_of_sets` too, intervals take a hundredth of the time.
    The other class attributes define how its scores are reported; comparisons, sweep tables and
    reports read them from here. Counting runs on the CPU: labels are one byte per pixel, which is
    fast to copy.

    Args:
        num_classes: number of scored classes, K.
        width: length of the count vector of an image.

    Attributes:
        name: prefix of its keys in results.json, or the whole key of a metric with one score.
        label: name shown to readers.
        unit: unit of its scores. With `%`, a score is stored as a fraction and shown in percent;
            scores of any other unit are shown as they are stored.
        higher_is_better: whether a larger score is better.
        curves: scores along a quantity; all other scores are single scores.
        headlines: keys of the one score that represents the metric in short tables; the first key
            that an evaluation has is used. If empty: the first place of the first curve, or the
            key `name`.
        facts: prefixes of keys that describe the images and are not scores.
        needs_confidence: whether it needs the probability of the predicted class.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[str] = "%"
    higher_is_better = True
    curves: ClassVar[tuple[Curve, ...]] = ()
    headlines: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[tuple[str, ...]] = ()
    needs_confidence: ClassVar[bool] = False

    def __init__(self, num_classes: int, width: int) -> None:
        self.num_classes = num_classes
        self.width = width

    @cached_property
    def state(self) -> "SummedCounts":
        """Sum of the images of `update`, a metric of torchmetrics."""
        from gald.metrics.state import SummedCounts

        return SummedCounts(self.width)

    @abstractmethod
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        """Count one image; every metric implements this.

        Several threads may call it at once, each for another image, and metrics share the arrays:
        it must change neither the metric nor the arrays.

        Args:
            labels: predicted train ids (H, W), contiguous.
            mask: true train ids (H, W), contiguous, 255 is void.
            confidence: probability of each predicted label (H, W), or None.

        Returns:
            `width` counts, in an array of any shape.
        """

    @abstractmethod
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        """Compute the scores from the summed counts (width,) of any set of images."""

    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        """Compute the scores of many sets of images at once: key -> scores (S,).

        A bootstrap asks for the scores of thousands of sets. They equal those of `scores` up to
        rounding. A metric without a method of its own scores one set after the other.

        Args:
            sums: summed counts of each set, whole numbers of any type (S, width).
            class_names: K names.
        """
        import torch

        vectors = torch.from_numpy(np.asarray(sums, np.int64))
        rows = [self.scores(vector, class_names) for vector in vectors]
        return {key: np.array([row[key] for row in rows], float) for key in rows[0]}

    def true_classes_only(self, sums: NDArray) -> NDArray:
        """Return summed counts (S, width) without those of classes that the truth of a set lacks.

        Networks are compared on these: in a set without a rare class, a single false pixel would
        otherwise score 0 for one network where the other has no score. A metric with means over
        classes that have no score without pixels implements it.
        """
        return sums

    def places(self, key: str) -> NDArray[np.intp]:
        """Return the places of the counts that decide a score; here all of them.

        A metric with many scores names the few, because a bootstrap sums only these: the other
        counts of `scores_of_sets` are then 0.
        """
        return np.arange(self.width)

    @property
    def factor(self) -> float:
        """Factor from a stored score to the displayed number."""
        return 100.0 if self.unit == "%" else 1.0

    def score_keys(self, class_names: Sequence[str]) -> list[str]:
        """Return the keys of the scores, without facts about the images."""
        known = self.scores_of_sets(np.zeros((1, self.width), np.int64), class_names)
        return [key for key in known if not key.startswith(self.facts)]

    def headline(self, known: Container[str], class_names: Sequence[str]) -> tuple[str, str] | None:
        """Return key and label of the score that represents the metric; None if it is unknown."""
        keys = [key for key in self.score_keys(class_names) if key in known]
        places = {
            key: key.removeprefix(curve.prefix)
            for curve in self.curves
            for key in keys
            if key.startswith(curve.prefix) and "/" not in key.removeprefix(curve.prefix)
        }
        for key in (*self.headlines, *places, self.name):
            if key in keys:
                where = self.place_label(places[key]) if key in places else ""
                return key, f"{self.label} ({where})" if where else self.label
        return None

    def place_label(self, place: str) -> str:
        """Format a place on a curve for readers."""
        return place

    def count(self, prediction: "LabelMap", mask: "Tensor") -> "Tensor":
        """Count one image.

        Args:
            prediction: labels (H, W), and confidence (H, W) or None.
            mask: train ids (H, W), 255 is void.

        Returns:
            (width,) int64, on the CPU.

        Raises:
            ValueError: the two differ in size, or a label is not one of the classes.
        """
        return self.count_image(image_arrays(prediction, mask, self.num_classes))

    def count_image(self, image: "ImageArrays") -> "Tensor":
        """Count one image from its arrays, as `count`; several metrics share them."""
        import torch

        counts = self.count_arrays(*image)
        return torch.from_numpy(np.ascontiguousarray(counts, dtype=np.int64).reshape(self.width))

    def update(self, prediction: "LabelMap", mask: "Tensor") -> None:
        """Add a batch; labels, confidence (or None) and mask are each (B, H, W)."""
        from gald.inference import LabelMap

        for i, labels in enumerate(prediction.labels):
            confidence = None if prediction.confidence is None else prediction.confidence[i]
            self.state.update(self.count(LabelMap(labels, confidence), mask[i]))

    def compute(self) -> "Tensor":
        """Return the sum over all images of all processes, (width,)."""
        return self.state.compute()

    def reset(self) -> None:
        """Forget the images of `update`."""
        self.state.reset()


class ImageArrays(NamedTuple):
    """Predicted train ids, true train ids and confidence (or None) of an image, each (H, W)."""

    labels: Bytes
    mask: Bytes
    confidence: NDArray[np.float32] | None


def image_arrays(prediction: "LabelMap", mask: "Tensor", num_classes: int) -> ImageArrays:
    """Copy a prediction and its mask to the CPU, and check them; see `CountMetric.count`."""
    if prediction.labels.shape != mask.shape:
        raise ValueError(
            f"prediction {tuple(prediction.labels.shape)} and mask {tuple(mask.shape)} differ "
            "in size; predict at the size of the mask"
        )
    labels, ground_truth = _bytes(prediction.labels), _bytes(mask)
    # Adding 1 wraps void (255) around to 0, so the maximum belongs to a class.
    for source, largest in (
        ("mask", int((ground_truth + np.uint8(1)).max(initial=0)) - 1),
        ("prediction", int(labels.max(initial=0))),
    ):
        if largest >= num_classes:
            raise ValueError(
                f"label {largest} of the {source} is neither one of the {num_classes} "
                f"classes nor void ({VOID}); check the dataset's label_map"
            )
    confidence = prediction.confidence
    array = None if confidence is None else confidence.float().cpu().contiguous().numpy()
    return ImageArrays(labels, ground_truth, array)


def _bytes(labels: "Tensor") -> Bytes:
    import torch

    narrow = labels.to(torch.uint8)
    if labels.dtype != torch.uint8 and bool((narrow != labels).any()):
        raise ValueError(
            f"labels range from {labels.min()} to {labels.max()}, but must be 0 to 255; check the "
            "dataset's label_map"
        )
    return narrow.cpu().contiguous().numpy()


def void_where(marked: NDArray[np.bool_], labels: Bytes) -> Bytes:
    """Copy labels with void at the marked pixels."""
    return labels | marked.view(np.uint8) * np.uint8(VOID)  # void has all bits set


def pair_counts(first: Bytes, second: Bytes) -> NDArray[np.int64]:
    """Count how often each pair of bytes occurs at a pixel: two arrays (H, W) -> (256, 256)."""
    total = np.zeros((256, 256), np.int64)
    # OpenCV counts in float32, which is exact up to 2^24.
    rows = max(1, 2**24 // max(1, first.shape[1]))
    for start in range(0, len(first), rows):
        part = slice(start, start + rows)
        pairs = cv2.merge([second[part], first[part]]).view(np.uint16)[..., 0]
        total += cv2.calcHist([pairs], [0], None, [2**16], [0, 2**16]).astype(int).reshape(256, 256)
    return total


def named(key: str, names: Sequence[str], values: "Tensor | NDArray") -> dict[str, float]:
    """Return one flat entry `key/name` per value."""
    return {f"{key}/{name}": float(v) for name, v in zip(names, values, strict=True)}


def columns(key: str, names: Sequence[str], table: NDArray) -> dict[str, NDArray]:
    """Return one flat entry `key/name` per column of a table (S, names)."""
    return {f"{key}/{name}": column for name, column in zip(names, table.T, strict=True)}


def mean_of_known(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Average along an axis without nan; nan if nothing else is there."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)


def ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """Divide counts; nan where there is nothing to divide by."""
    with np.errstate(invalid="ignore"):
        return part / whole
