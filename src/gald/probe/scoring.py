"""Evaluation of a probe's cell, at the size of its features."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from gald.evaluation.evaluate import build_metrics, receipt_of
from gald.evaluation.evaluator import Evaluator
from gald.inference import FullImage
from gald.model.segmentor import Segmentor
from gald.probe.batches import Batches
from gald.run.results import Results

_IMAGES = 16  # of a batch


@torch.no_grad()
def score(
    config: DictConfig,
    model: Segmentor,
    batches: Batches,
    split: str,
    class_names: tuple[str, ...],
    folder: Path,
    about: dict[str, Any],
) -> Results:
    """Evaluate a cell on a split, and write its `images_<split>.npz`.

    Args:
        config: the config of the cell.
        model: the network, in evaluation mode.
        batches: features of the split.
        split: `val` or `test`.
        class_names: names of the K classes.
        folder: the run folder.
        about: further entries of the receipt.

    Returns:
        scores such as `val/miou`, and `val/receipt`.
    """
    evaluator = Evaluator(build_metrics(config.metrics, len(class_names)), per_image=True)
    inference = FullImage(model.align_corners)
    try:
        for names, batch in batches.of_evaluation(_IMAGES):
            known: Any = _Known(model.distribute(model.aggregate_maps(batch.maps, batch.truth)))
            image: Any = batch.mask[:, None]  # only its size is read
            labels = inference.predict(known, image, evaluator.needs_confidence)
            evaluator.update(labels, batch.mask, names)
        scores = evaluator.compute(class_names)
    finally:
        evaluator.stop()
    if batches.features.groups is not None:
        evaluator.images.set_groups(batches.features.groups)
    evaluator.images.save(folder / f"images_{split}.npz")
    receipt = receipt_of(
        evaluator, split, class_names, model, about | {"inference": as_config(model)}
    )
    return {f"{split}/{key}": value for key, value in scores.items()} | {
        f"{split}/receipt": receipt
    }


def as_config(model: Segmentor) -> dict[str, Any]:
    """Return the config of the inference of a probe: whole images, in one pass."""
    return {
        "_target_": "gald.inference.whole.FullImage",
        "align_corners": model.align_corners,
    }


class _Known(nn.Module):
    """Network with known logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.known = logits

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits."""
        return self.known
