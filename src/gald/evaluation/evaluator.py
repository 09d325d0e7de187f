"""Counts of predictions against ground truth, with hashes of both."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gald.inference import LabelMap
from gald.metrics.base import CountMetric
from gald.metrics.images import ImageCounts
from gald.run.provenance import sha256


class Evaluator(nn.Module):
    """Comparison of predictions with ground truth by several metrics at once.

    Args:
        metrics: the metrics to count.
        per_image: whether to keep the counts and hashes of every image.

    Attributes:
        scores: scores of the latest `compute`, in double precision.
        images: counts of every image, if `per_image` is set.
    """

    def __init__(self, metrics: Iterable[CountMetric], per_image: bool = False) -> None:
        super().__init__()
        self.metrics = list(metrics)
        self._registered = nn.ModuleList(m.state for m in self.metrics)  # they move to its device
        self.per_image = per_image
        self.images = ImageCounts()
        self.scores: dict[str, float] = {}
        self._digests: dict[str, tuple[str, str]] = {}  # image -> hashes of mask and prediction

    @property
    def needs_confidence(self) -> bool:
        """Whether a metric needs the probability of the predicted class."""
        return any(metric.needs_confidence for metric in self.metrics)

    def update(self, prediction: LabelMap, mask: Tensor, names: Sequence[str]) -> None:
        """Count a batch.

        Args:
            prediction: labels (B, H, W), and confidence (B, H, W) or None.
            mask: ground truth (B, H, W), void 255.
            names: names of the images.
        """
        if not self.per_image:
            for metric in self.metrics:
                metric.update(prediction, mask)
            return
        for i, name in enumerate(names):
            confidence = None if prediction.confidence is None else prediction.confidence[i]
            one = LabelMap(prediction.labels[i], confidence)
            for metric in self.metrics:
                self.images.add(name, metric.name, metric.count(one, mask[i]))
            self._digests[name] = (_digest(mask[i]), _digest(one.labels))

    def compute(self, class_names: Sequence[str]) -> dict[str, float]:
        """Score the images of all processes; counts not kept per image are reset afterwards.

        All processes must call it.
        """
        self._gather()
        self.scores = {}
        for metric in self.metrics:
            if self.per_image:
                total = torch.from_numpy(self.images.total(metric.name))
            else:
                total = metric.compute().cpu()
                metric.reset()
            self.scores |= metric.scores(total, class_names)
        return self.scores

    def _gather(self) -> None:
        if self.per_image and dist.is_available() and dist.is_initialized():
            self.images = self.images.gather()
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self._digests)
            self._digests = {name: pair for part in parts for name, pair in part.items()}

    def fingerprints(self) -> dict[str, Any]:
        """Return the number of images, and the SHA-256 of names, masks and predicted labels."""
        names = sorted(self._digests)
        columns = {
            "images": names,
            "ground_truth": [self._digests[name][0] for name in names],
            "predictions": [self._digests[name][1] for name in names],
        }
        hashes = {f"{key}_sha256": sha256(column) for key, column in columns.items()}
        return {"images": len(names), **hashes}


def _digest(labels: Tensor) -> str:
    array = labels.byte().cpu().contiguous().numpy()
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
