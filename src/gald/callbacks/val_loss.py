"""Loss on the validation images."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torchmetrics import MeanMetric
from typing_extensions import override

from gald.data.labels import VOID
from gald.model.truth import shown_to


class ValidationLoss(Callback):
    """Callback that logs `val/loss`: the loss of whole images, weighted by their labelled pixels.

    It computes each image once more, because the score needs only the label maps. In eval mode a
    network has no auxiliary output, so this is the loss of the main head.
    """

    def __init__(self) -> None:
        self.mean = MeanMetric()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.mean = MeanMetric().to(pl_module.device)

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: list[dict[str, Any]],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        task: Any = pl_module  # a SegmentationTask
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for part in batch:  # one part per image size
                image = shown_to(task.model, part["image"], part["mask"])
                loss = task.loss(task.model(image), part["mask"])
                self.mean.update(loss, (part["mask"] != VOID).sum())

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("val/loss", self.mean.compute())
