"""What Lightning trains: three steps, the metric, the optimizer. No dataset, no module is known."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from gald.evaluation.evaluator import Judge
from gald.inference import Inference
from gald.metrics.confusion import ConfusionMatrix
from gald.model.segmentor import Segmentor
from gald.scheduler import group_table, parameter_groups

Batch = dict[str, Any]


class EvaluationTask(pl.LightningModule):
    """Judges a network.

    Args:
        model: the network.
        inference: how images are scored and labelled.
        class_names: names of the K classes.
    """

    def __init__(self, model: Segmentor, inference: Inference, class_names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inference = inference
        self.class_names = tuple(class_names)
        # While training, by the metric that costs least; `evaluate` brings the others.
        self.judge = Judge([ConfusionMatrix(len(self.class_names))])
        # What was last logged, in double precision: Lightning's own copies are rounded to single.
        self.scores: dict[str, float] = {}

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (B, K, H, W) at the image's size."""
        return self.inference(self.model, image)

    def validation_step(self, batch: list[Batch], batch_idx: int) -> None:  # noqa: D102
        for part in batch:  # one of each image size
            sure = self.judge.needs_confidence
            prediction = self.inference.predict(self.model, part["image"], sure)
            self.judge.add(prediction, part["mask"], part["name"])

    def test_step(self, batch: list[Batch], batch_idx: int) -> None:  # noqa: D102
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:  # noqa: D102
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        # The counts of all processes are added; every process then logs the same numbers.
        result = self.judge.scores(self.class_names)
        self.scores = {f"{split}/{name}": value for name, value in result.items()}
        for name, value in self.scores.items():
            self.log(name, float(value), prog_bar=name.endswith("/miou"))


class SegmentationTask(EvaluationTask):
    """Trains and judges a Segmentor.

    Args:
        model: the network.
        loss: (SegOutput, mask) -> scalar.
        inference: how images are scored and labelled.
        optimizer: factory that takes parameter groups; its keywords hold `lr` and
            `weight_decay`.
        scheduler: factory `(optimizer, total_steps)` of a schedule that steps every iteration.
        class_names: names of the K classes.
        head_lr_factor: see `gald.scheduler.parameter_groups`.
        decay_norm_and_bias: see `gald.scheduler.parameter_groups`.
        seed: what dropout is drawn from, together with the position in training.
        provenance: plain data that makes a checkpoint self-sufficient (resolved config, class
            names, palette); saved under the key `gald`.
    """

    def __init__(
        self,
        model: Segmentor,
        loss: nn.Module,
        inference: Inference,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any],
        class_names: Sequence[str],
        head_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = True,
        seed: int = 0,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, inference, class_names)
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.head_lr_factor = head_lr_factor
        self.decay_norm_and_bias = decay_norm_and_bias
        self.seed = seed
        self.provenance = provenance or {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Key dropout by position, so that a resumed run draws what an uninterrupted one would."""
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: D102
        loss = self.loss(self.model(batch["image"]), batch["mask"])
        size = len(batch["image"])
        self.log("train/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:  # noqa: ANN401, D102
        keywords = getattr(self.make_optimizer, "keywords", {})
        groups = parameter_groups(
            self.model,
            keywords["lr"],
            keywords.get("weight_decay", 0.0),
            self.head_lr_factor,
            self.decay_norm_and_bias,
        )
        rank_zero_only(Console().print)(group_table(groups))
        optimizer = self.make_optimizer(groups)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = {"scheduler": self.make_scheduler(optimizer, steps), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["gald"] = self.provenance
