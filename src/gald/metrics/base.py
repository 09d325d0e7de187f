"""What all metrics have in common: one image becomes whole numbers, which add up to the score."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from gald.data.labels import VOID
from gald.inference import Prediction

Bytes = NDArray[np.uint8]


class CountMetric(Metric):
    """Adds up the count vectors of images.

    A metric sets `name`, hands its `width` to this constructor, and writes `count_arrays` and
    `scores`. Everything is counted on the CPU: labels are a byte a pixel, which travel fast.

    Args:
        num_classes: classes that are scored, K.
        width: length of the vector that an image becomes.
    """

    full_state_update = False
    name: ClassVar[str]
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
        """Count one image; each metric writes this.

        Args:
            labels: predicted train ids (H, W), contiguous.
            mask: true train ids (H, W), contiguous, 255 is void.
            confidence: of each prediction (H, W), where there is one.

        Returns:
            (width,) in any shape of as many numbers.
        """

    @abstractmethod
    def scores(self, counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
        """Turn the counts of any set of images (width,) into the numbers people report."""

    def count(self, prediction: Prediction, mask: Tensor) -> Tensor:
        """Count one image.

        Args:
            prediction: labels (H, W), and confidence (H, W) or None.
            mask: train ids (H, W), 255 is void.

        Returns:
            (width,) int64, on the CPU.

        Raises:
            ValueError: the two differ in size, or a label is none of the classes.
        """
        if prediction.labels.shape != mask.shape:
            raise ValueError(
                f"prediction {tuple(prediction.labels.shape)} and mask {tuple(mask.shape)} differ "
                "in size; predict at the size of the mask"
            )
        labels, truth = _bytes(prediction.labels), _bytes(mask)
        # 255 wraps around to 0, so that the largest label is that of a class.
        for whose, top in (
            ("mask", int((truth + np.uint8(1)).max(initial=0)) - 1),
            ("prediction", int(labels.max(initial=0))),
        ):
            if top >= self.num_classes:
                raise ValueError(
                    f"label {top} of the {whose} is neither one of the {self.num_classes} classes "
                    f"nor void ({VOID}); check the dataset's label_map"
                )
        confidence = prediction.confidence
        sure = None if confidence is None else confidence.float().cpu().contiguous().numpy()
        counted = self.count_arrays(labels, truth, sure)
        return torch.from_numpy(np.ascontiguousarray(counted, dtype=np.int64).reshape(self.width))

    def update(self, prediction: Prediction, mask: Tensor) -> None:
        """Add a batch: labels, confidence or None, and mask are each (B, H, W)."""
        for i, truth in enumerate(mask):
            sure = None if prediction.confidence is None else prediction.confidence[i]
            self.counts += self.count(Prediction(prediction.labels[i], sure), truth).to(self.device)

    def compute(self) -> Tensor:
        """The sum over all images of all processes, (width,)."""
        return self.counts


def _bytes(labels: Tensor) -> Bytes:
    narrow = labels.to(torch.uint8)
    if labels.dtype != torch.uint8 and bool((narrow != labels).any()):
        raise ValueError(
            f"labels reach from {labels.min()} to {labels.max()}; they must fit a byte"
        )
    return narrow.cpu().contiguous().numpy()


def pair_counts(first: Bytes, second: Bytes) -> NDArray[np.int64]:
    """Count how often each pair of bytes meets at a pixel: (H, W) twice -> (256, 256)."""
    total = np.zeros((256, 256), np.int64)
    rows = max(
        1, 2**24 // max(1, first.shape[1])
    )  # OpenCV counts in single precision: exact so far
    for start in range(0, len(first), rows):
        part = slice(start, start + rows)
        pairs = cv2.merge([second[part], first[part]]).view(np.uint16)[..., 0]
        total += cv2.calcHist([pairs], [0], None, [2**16], [0, 2**16]).astype(int).reshape(256, 256)
    return total


def named(key: str, names: Sequence[str], values: Tensor | NDArray) -> dict[str, float]:
    """One flat entry `key/name` for each value."""
    return {f"{key}/{name}": float(v) for name, v in zip(names, values, strict=True)}
