"""Judge a network: count over all images of a split, keep what each image counted, and sign it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.utils import instantiate
from torch import Tensor, nn

from gald.data.datamodule import SegmentationDataModule
from gald.data.labels import VOID
from gald.inference import Prediction
from gald.metrics.base import CountMetric
from gald.metrics.images import ImageCounts
from gald.run.results import Results, commit, versions


class Judge(nn.Module):
    """What predictions are held against: metrics, and fingerprints of what was judged.

    Args:
        metrics: what to count.
        keep_images: whether to keep the counts and fingerprints of every image.
    """

    def __init__(self, metrics: Iterable[CountMetric], keep_images: bool = False) -> None:
        super().__init__()
        self.metrics = list(metrics)
        self._moved = nn.ModuleList(self.metrics)  # to the network's device, with the network
        self.keep_images = keep_images
        self.images = ImageCounts()
        self.prints: dict[str, tuple[str, str]] = {}  # image -> of its mask, of the prediction

    @property
    def needs_confidence(self) -> bool:
        """Whether a metric looks at how sure the network is."""
        return any(metric.needs_confidence for metric in self.metrics)

    def add(self, prediction: Prediction, mask: Tensor, names: Sequence[str]) -> None:
        """Count a batch: labels, confidence or None, and mask, each (B, H, W)."""
        if not self.keep_images:
            for metric in self.metrics:
                metric.update(prediction, mask)
            return
        for i, name in enumerate(names):
            confidence = None if prediction.confidence is None else prediction.confidence[i]
            one = Prediction(prediction.labels[i], confidence)
            for metric in self.metrics:
                self.images.add(name, metric.name, metric.count(one, mask[i]))
            self.prints[name] = (_digest(mask[i]), _digest(one.labels))

    def scores(self, class_names: Sequence[str]) -> dict[str, float]:
        """All numbers, over the images of all processes; what is not kept starts afresh."""
        self._gather()
        found: dict[str, float] = {}
        for metric in self.metrics:
            if self.keep_images:
                total = torch.from_numpy(self.images.total(metric.name))
            else:
                total = metric.compute().cpu()
                metric.reset()
            found |= metric.scores(total, class_names)
        return found

    def _gather(self) -> None:
        if self.keep_images and dist.is_available() and dist.is_initialized():
            self.images = self.images.gather()
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self.prints)
            self.prints = {name: both for part in parts for name, both in part.items()}

    def fingerprints(self) -> dict[str, Any]:
        """How many images were judged, and SHA-256 of their names, masks and predicted labels."""
        names = sorted(self.prints)
        columns = {
            "images": names,
            "truth": [self.prints[name][0] for name in names],
            "predictions": [self.prints[name][1] for name in names],
        }
        sums = {f"{key}_sha256": sha256(column) for key, column in columns.items()}
        return {"images": len(names), **sums}


def judge(
    trainer: pl.Trainer,
    task: Any,  # noqa: ANN401  an EvaluationTask, which imports this file
    data: SegmentationDataModule,
    split: str,
    folder: Path,
    metrics: Any,  # noqa: ANN401  a config
    about: dict[str, Any],
    weights: str | None = None,
) -> Results:
    """Score a split, write `images_<split>.npz`, and return the scores with their receipt.

    Args:
        trainer: whose devices do it.
        task: the network; keeps its own judge for training.
        data: whose split.
        split: `val` or `test`.
        folder: where the counts of every image are written.
        metrics: config of the metrics, factories `(num_classes)` by name.
        about: what else the receipt says.
        weights: a checkpoint to judge instead of the task's present weights.

    Returns:
        scores as `val/miou`, and `val/receipt`: what was measured, on what, with what.
    """
    factories = instantiate(metrics)
    made = [make(num_classes=data.num_classes) for make in factories.values()]
    training, task.judge = task.judge, Judge(made, keep_images=True)
    run = {"val": trainer.validate, "test": trainer.test}[split]
    run(task, datamodule=data, ckpt_path=weights, weights_only=True, verbose=False)
    done, task.judge = task.judge, training
    if trainer.is_global_zero:
        done.images.save(folder / f"images_{split}.npz")
    receipt = {
        "split": split,
        **done.fingerprints(),
        "classes_sha256": sha256(list(data.class_names)),
        "void": VOID,
        **about,
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "commit": commit(),
        **versions(),
    }
    return task.scores | {f"{split}/receipt": receipt}


def describe(config: dict[str, Any], checkpoint: str | Path | None) -> dict[str, Any]:
    """What a receipt says of a network and its data: enough to judge it again.

    Args:
        config: resolved; the parts `data`, `inference` and `metrics` count.
        checkpoint: of the weights, if they were ever written.
    """
    said = {part: config[part] for part in ("data", "inference", "metrics")}
    if checkpoint is not None:
        path = Path(checkpoint).absolute()
        said |= {"checkpoint": str(path), "checkpoint_sha256": sha256(path)}
    return said


def sha256(value: Any) -> str:  # noqa: ANN401
    """SHA-256 of a file, or of plain data as JSON."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(labels: Tensor) -> str:
    array = labels.byte().cpu().contiguous().numpy()
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
