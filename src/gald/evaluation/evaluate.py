"""Evaluate a network on a split: per-image counts, scores, and a receipt of hashes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from gald.data.datamodule import SegmentationDataModule
from gald.data.labels import VOID
from gald.evaluation.evaluator import Evaluator
from gald.evaluation.task import EvaluationTask
from gald.inference import Inference
from gald.metrics.base import CountMetric
from gald.model.network import Network
from gald.model.truth import reads_truth
from gald.run.building import build_own
from gald.run.provenance import commit, sha256, versions
from gald.run.results import Results

EVALUATED = ("data", "inference", "metrics")  # parts of a config that define an evaluation


def build_metrics(config: Any, num_classes: int) -> list[CountMetric]:
    """Build the metrics of the user's config, which has factories `(num_classes)` by name."""
    return [make(num_classes=num_classes) for make in build_own(config).values()]


def evaluate(
    trainer: pl.Trainer,
    model: Network,
    inference: Inference,
    data: SegmentationDataModule,
    split: str,
    metrics: list[CountMetric],
    folder: Path,
    about: dict[str, Any],
) -> Results:
    """Evaluate a network on a split, and write the counts per image to `images_<split>.npz`.

    If the data knows groups of images, such as videos, the file has the group of each image.

    Args:
        trainer: runs the network on its devices.
        model: the network, with its weights.
        inference: how the network predicts label maps.
        data: the dataset.
        split: `val` or `test`.
        metrics: the metrics to count.
        folder: folder for the counts per image, and of the `results.json` that will hold the
            receipt: the receipt names a checkpoint inside it by its relative path, so that the
            folder can be moved.
        about: further entries of the receipt; see `describe`.

    Returns:
        scores such as `val/miou`, and `val/receipt`: split, hashes of images, masks and
        predictions, settings, device, commit and versions.
    """
    groups = data.image_groups(split)  # refuses before the evaluation
    evaluator = Evaluator(metrics, per_image=True)
    task = EvaluationTask(model, inference, evaluator, data.class_names)
    run = {"val": trainer.validate, "test": trainer.test}[split]
    run(task, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        if groups is not None:
            evaluator.images.set_groups(groups)
        evaluator.images.save(folder / f"images_{split}.npz")
    if Path(about.get("checkpoint", "/")).is_relative_to(folder.absolute()):
        about = about | {
            "checkpoint": str(Path(about["checkpoint"]).relative_to(folder.absolute()))
        }
    about |= {
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
    }
    receipt = receipt_of(evaluator, split, data.class_names, model, about)
    scores = {f"{split}/{name}": value for name, value in evaluator.scores.items()}
    return scores | {f"{split}/receipt": receipt}


def receipt_of(
    evaluator: Evaluator,
    split: str,
    class_names: Sequence[str],
    model: nn.Module,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Return the receipt of an evaluation.

    Args:
        evaluator: the evaluator, after `compute`.
        split: the split.
        class_names: names of the K classes.
        model: the network.
        about: further entries: settings, device, precision.
    """
    return {
        "split": split,
        **evaluator.fingerprints(),
        "classes_sha256": sha256(list(class_names)),
        "void": VOID,
        **about,
        **({"reads_truth": True} if reads_truth(model) else {}),
        "commit": commit(),
        **versions(),
    }


def describe(config: dict[str, Any], checkpoint: str | Path | None) -> dict[str, Any]:
    """Return the receipt entries that are needed to evaluate the same network again.

    Args:
        config: resolved configuration; the parts in `EVALUATED` are kept.
        checkpoint: file of the weights, or None if they were not saved.
    """
    entries = {part: config[part] for part in EVALUATED}
    if checkpoint is not None:
        path = Path(checkpoint).absolute()
        entries |= {"checkpoint": str(path), "checkpoint_sha256": sha256(path)}
    return entries
