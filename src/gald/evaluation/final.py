"""Final evaluation of a training: one checkpoint on every split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.evaluate import describe, evaluate
from gald.evaluation.last_validation import LastValidation
from gald.inference import Inference
from gald.metrics.base import CountMetric
from gald.model.network import Network
from gald.run.checkpoint import load_weights, read_checkpoint
from gald.run.results import MISSING, Results, write_results


def final_evaluation(  # noqa: PLR0913  a training ends here, with all its parts
    trainer: pl.Trainer,
    checkpoint: str | None,
    model: Network,
    inference: Inference,
    data: SegmentationDataModule,
    splits: Sequence[str],
    metrics: list[CountMetric],
    folder: Path,
    config: dict[str, Any],
    run: Results,
    validated: LastValidation | None = None,
) -> Results:
    """Evaluate a network after its training on every split.

    The results of each split are written to `results.json` before the next split begins, so that a
    fault there loses nothing; the key `missing_split` names that split.

    Args:
        trainer: the trainer after training, without callbacks that replace weights.
        checkpoint: file of the weights to evaluate; None for those that the network has.
        model: the network.
        inference: how the network predicts label maps.
        data: the dataset, set up for the splits.
        splits: `val`, or `val` and `test`.
        metrics: the metrics to count.
        folder: the run folder.
        config: resolved configuration of the run.
        run: results of the training itself.
        validated: the last validation of the training, which is not repeated if it had the weights
            of the checkpoint.

    Returns:
        scores and receipts of all splits, and `run`.
    """
    if not trainer.limit_val_batches:  # no validation during the training
        trainer.limit_val_batches = 1.0
    if checkpoint is not None:
        load_weights(model, read_checkpoint(checkpoint))
    about = describe(config, checkpoint)
    known = None if validated is None else validated.of(model, trainer)
    if known is not None:
        rank_zero_only(Console(markup=False, emoji=False).print)(
            "the scores of val are those of the last validation, which had the evaluated weights",
            soft_wrap=True,
        )
    results: Results = {}
    for split in splits:
        counted = known if split == "val" else None
        results |= evaluate(trainer, model, inference, data, split, metrics, folder, about, counted)
        _say_if_partial(trainer, split)
        if trainer.is_global_zero and split != splits[-1]:
            write_results(folder / "results.json", results | run | {MISSING: splits[-1]})
    return results | run


def _say_if_partial(trainer: pl.Trainer, split: str) -> None:
    limit = {"val": trainer.limit_val_batches, "test": trainer.limit_test_batches}[split]
    if limit != 1.0 or isinstance(limit, int):
        rank_zero_only(Console(markup=False, emoji=False).print)(
            f"the scores of {split} are of a part of its images: trainer.limit_{split}_batches is "
            f"{limit}",
            soft_wrap=True,
        )
