"""Counts of predictions against ground truth, with hashes of both."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gald.device import threads_beside
from gald.inference import LabelMap
from gald.metrics.base import Bytes, CountMetric, image_arrays
from gald.metrics.images import ImageCounts
from gald.progress import Beside
from gald.run.provenance import sha256


class _Counted(NamedTuple):
    """Count vectors of an image, by metric, and the hashes of mask and prediction."""

    name: str
    vectors: list[Tensor]
    digests: tuple[str, str] | None


class Evaluator(nn.Module):
    """Comparison of predictions with ground truth by several metrics at once.

    Images are counted in threads beside the network, several at a time and each by one thread:
    OpenCV and numpy release the interpreter's lock in most of the work. Counts are integers and are
    kept in the order of the images, so no number depends on the threads.

    Args:
        metrics: the metrics to count.
        per_image: whether to keep the counts and hashes of every image.

    Attributes:
        scores: scores of the latest `compute`, in double precision.
    """

    def __init__(self, metrics: Iterable[CountMetric], per_image: bool = False) -> None:
        super().__init__()
        self.metrics = list(metrics)
        self._registered = nn.ModuleList(m.state for m in self.metrics)  # they move to its device
        self.per_image = per_image
        self._images = ImageCounts()
        self.scores: dict[str, float] = {}
        self._calls: Beside[_Counted] | None = None  # only between `update` and `compute`
        self._digests: dict[str, tuple[str, str]] = {}  # image -> hashes of mask and prediction

    @property
    def needs_confidence(self) -> bool:
        """Whether a metric needs the probability of the predicted class."""
        return any(metric.needs_confidence for metric in self.metrics)

    @property
    def images(self) -> ImageCounts:
        """Counts of every image, if `per_image` is set."""
        self.finish()
        return self._images

    def update(self, prediction: LabelMap, mask: Tensor, names: Sequence[str]) -> None:
        """Count a batch; most of the work is done in threads, beside what the caller does next.

        Args:
            prediction: labels (B, H, W), and confidence (B, H, W) or None.
            mask: ground truth (B, H, W), void 255.
            names: names of the images.

        Raises:
            ValueError: as `CountMetric.count`, for this image or for one of the images before it.
        """
        labels, truth = prediction.labels.cpu(), mask.cpu()
        confidence = None if prediction.confidence is None else prediction.confidence.cpu()
        if self._calls is None:
            threads = threads_beside()
            self._calls = Beside(threads, 2 * threads)
        try:
            for i, name in enumerate(names):
                one = LabelMap(labels[i], None if confidence is None else confidence[i])
                for call in self._calls.put(self._count, one, truth[i], name):
                    self._keep(call.result())
        except BaseException:
            self.stop()
            raise

    def _count(self, prediction: LabelMap, mask: Tensor, name: str) -> _Counted:
        """Count one image in a thread; what it returns is kept by the thread of the caller."""
        image = image_arrays(prediction, mask, min(m.num_classes for m in self.metrics))
        digests = (_digest(image.mask), _digest(image.labels)) if self.per_image else None
        return _Counted(name, [m.count_image(image) for m in self.metrics], digests)

    def _keep(self, image: _Counted) -> None:
        for metric, vector in zip(self.metrics, image.vectors, strict=True):
            if self.per_image:
                self._images.add(image.name, metric.name, vector)
            else:
                metric.state.update(vector)
        if image.digests is not None:
            self._digests[image.name] = image.digests

    def finish(self) -> None:
        """Wait until every image is counted, and end the threads."""
        try:
            for call in () if self._calls is None else self._calls.rest():
                self._keep(call.result())
        finally:
            self.stop()

    def stop(self) -> None:
        """End the threads; images that are not counted are dropped."""
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    def compute(self, class_names: Sequence[str]) -> dict[str, float]:
        """Score the images of all processes; counts not kept per image are reset afterwards.

        All processes must call it.
        """
        self.finish()
        self._gather()
        self.scores = {}
        for metric in self.metrics:
            if self.per_image:
                total = torch.from_numpy(self._images.total(metric.name))
            else:
                total = metric.compute().cpu().reshape(metric.width)
                metric.reset()
            self.scores |= metric.scores(total, class_names)
        return self.scores

    def _gather(self) -> None:
        if self.per_image and dist.is_available() and dist.is_initialized():
            self._images = self._images.gather()
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self._digests)
            self._digests = {name: pair for part in parts for name, pair in part.items()}

    def fingerprints(self) -> dict[str, Any]:
        """Return the number of images, and the SHA-256 of names, masks and predicted labels."""
        self.finish()
        names = sorted(self._digests)
        columns = {
            "images": names,
            "ground_truth": [self._digests[name][0] for name in names],
            "predictions": [self._digests[name][1] for name in names],
        }
        hashes = {f"{key}_sha256": sha256(column) for key, column in columns.items()}
        return {"images": len(names), **hashes}


def _digest(labels: Bytes) -> str:
    return hashlib.sha256(repr(labels.shape).encode() + labels.tobytes()).hexdigest()
