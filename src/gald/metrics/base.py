"""Base class of all metrics: an image becomes integer counts, and summed counts become scores."""

from abc import abstractmethod
from collections.abc import Container, Sequence
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from gald.data.labels import VOID
from gald.inference import LabelMap

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


class CountMetric(Metric):
    """Base class of a metric that sums the count vectors of images.

    A metric sets `name` and `label`, passes its `width` to this constructor, and implements
    `count_arrays` and `scores`. The other class attributes define how its scores are reported;
    comparisons, sweep tables and reports read them from here. Counting runs on the CPU: labels are
    one byte per pixel, which is fast to copy.

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

    full_state_update = False
    name: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[str] = "%"
    higher_is_better = True
    curves: ClassVar[tuple[Curve, ...]] = ()
    headlines: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[tuple[str, ...]] = ()
    needs_confidence: ClassVar[bool] = False
    counts: Tensor

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.add_state("counts", torch.zeros(width, dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        """Count one image; every metric implements this.

        Args:
            labels: predicted train ids (H, W), contiguous.
            mask: true train ids (H, W), contiguous, 255 is void.
            confidence: probability of each predicted label (H, W), or None.

        Returns:
            `width` counts, in an array of any shape.
        """

    @abstractmethod
    def scores(self, counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
        """Compute the scores from the summed counts (width,) of any set of images."""

    @property
    def factor(self) -> float:
        """Factor from a stored score to the displayed number."""
        return 100.0 if self.unit == "%" else 1.0

    def score_keys(self, class_names: Sequence[str]) -> list[str]:
        """Return the keys of the scores, without facts about the images."""
        nothing = torch.zeros(self.width, dtype=torch.int64)
        return [key for key in self.scores(nothing, class_names) if not key.startswith(self.facts)]

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

    def count(self, prediction: LabelMap, mask: Tensor) -> Tensor:
        """Count one image.

        Args:
            prediction: labels (H, W), and confidence (H, W) or None.
            mask: train ids (H, W), 255 is void.

        Returns:
            (width,) int64, on the CPU.

        Raises:
            ValueError: the two differ in size, or a label is not one of the classes.
        """
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
            if largest >= self.num_classes:
                raise ValueError(
                    f"label {largest} of the {source} is neither one of the {self.num_classes} "
                    f"classes nor void ({VOID}); check the dataset's label_map"
                )
        confidence = prediction.confidence
        array = None if confidence is None else confidence.float().cpu().contiguous().numpy()
        counts = self.count_arrays(labels, ground_truth, array)
        return torch.from_numpy(np.ascontiguousarray(counts, dtype=np.int64).reshape(self.width))

    def update(self, prediction: LabelMap, mask: Tensor) -> None:
        """Add a batch; labels, confidence (or None) and mask are each (B, H, W)."""
        for i, labels in enumerate(prediction.labels):
            confidence = None if prediction.confidence is None else prediction.confidence[i]
            counts = self.count(LabelMap(labels, confidence), mask[i])
            self.counts += counts.to(self.device)

    def compute(self) -> Tensor:
        """Return the sum over all images of all processes, (width,)."""
        return self.counts


def _bytes(labels: Tensor) -> Bytes:
    narrow = labels.to(torch.uint8)
    if labels.dtype != torch.uint8 and bool((narrow != labels).any()):
        raise ValueError(
            f"labels range from {labels.min()} to {labels.max()}, but must be 0 to 255; check the "
            "dataset's label_map"
        )
    return narrow.cpu().contiguous().numpy()


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


def named(key: str, names: Sequence[str], values: Tensor | NDArray) -> dict[str, float]:
    """Return one flat entry `key/name` per value."""
    return {f"{key}/{name}": float(v) for name, v in zip(names, values, strict=True)}
