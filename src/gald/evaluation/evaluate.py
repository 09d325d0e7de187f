"""Evaluate a network on a split: per-image counts, scores, and a receipt of hashes."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate

from gald.data.datamodule import SegmentationDataModule
from gald.data.labels import VOID
from gald.evaluation.evaluator import Evaluator
from gald.evaluation.task import EvaluationTask
from gald.inference import Inference
from gald.metrics.base import CountMetric
from gald.model.segmentor import Segmentor
from gald.run.provenance import commit, sha256, versions
from gald.run.results import Results

EVALUATED = ("data", "inference", "metrics")  # parts of a config that decide what is measured


def build_metrics(config: Any, num_classes: int) -> list[CountMetric]:
    """The metrics of a config, factories `(num_classes)` by name."""
    return [make(num_classes=num_classes) for make in instantiate(config).values()]


def evaluate(
    trainer: pl.Trainer,
    model: Segmentor,
    inference: Inference,
    data: SegmentationDataModule,
    split: str,
    metrics: list[CountMetric],
    folder: Path,
    about: dict[str, Any],
) -> Results:
    """Score a split, and write `images_<split>.npz` with the counts of every image.

    Args:
        trainer: runs the network on its devices.
        model: the network, with its weights.
        inference: how images are scored and labelled.
        data: the dataset.
        split: `val` or `test`.
        metrics: what to count.
        folder: where the counts are written.
        about: further entries of the receipt; see `describe`.

    Returns:
        scores as `val/miou`, and `val/receipt`: what was measured, on what, with what.
    """
    evaluator = Evaluator(metrics, per_image=True)
    task = EvaluationTask(model, inference, evaluator, data.class_names)
    run = {"val": trainer.validate, "test": trainer.test}[split]
    run(task, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        evaluator.images.save(folder / f"images_{split}.npz")
    receipt = {
        "split": split,
        **evaluator.fingerprints(),
        "classes_sha256": sha256(list(data.class_names)),
        "void": VOID,
        **about,
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "commit": commit(),
        **versions(),
    }
    scores = {f"{split}/{name}": value for name, value in evaluator.scores.items()}
    return scores | {f"{split}/receipt": receipt}


def describe(config: dict[str, Any], checkpoint: str | Path | None) -> dict[str, Any]:
    """Entries of a receipt that suffice to evaluate the same network again.

    Args:
        config: resolved; the parts named in `EVALUATED` are kept.
        checkpoint: file of the weights, if they were ever written.
    """
    entries = {part: config[part] for part in EVALUATED}
    if checkpoint is not None:
        path = Path(checkpoint).absolute()
        entries |= {"checkpoint": str(path), "checkpoint_sha256": sha256(path)}
    return entries
