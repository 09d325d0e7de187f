"""Lightning module for training: loss, optimizer, and mIoU after every epoch."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from typing_extensions import override

from gald.device import reuse_memory
from gald.evaluation.evaluator import Evaluator
from gald.evaluation.last_validation import LastValidation
from gald.evaluation.task import Batch, EvaluationTask
from gald.inference import Inference, LabelMap
from gald.metrics.base import CountMetric
from gald.metrics.confusion import ConfusionMatrix
from gald.model.network import Network
from gald.model.segmentor import SegOutput
from gald.model.truth import shown_to
from gald.optimizer import OptimizerFactory, build_optimizer, group_table, refuse_fused_clipping
from gald.options.ranges import NotNegative, Range, Seed
from gald.run.old_names import renew_weights
from gald.run.step_loss import REMEDY, NotFiniteError, StepLoss
from gald.run.to_host import sum_over_processes
from gald.run.weight_file import find_defect


class SegmentationTask(EvaluationTask):
    """Training of a network; validation computes only the cheapest metric, mIoU.

    The last validation may count other metrics too, see `count_last_validation`.

    Args:
        model: the network.
        loss: `(SegOutput, mask, pixels, step_pixels)` -> scalar, this mask's part of the loss over
            the whole optimizer step; see `gald.loss.deep_supervision.DeepSupervision`.
        inference: how the network predicts label maps.
        optimizer: factory, see `gald.optimizer.build_optimizer`.
        scheduler: factory `(optimizer, total_steps)` of a schedule that steps every iteration.
        class_names: names of the K classes.
        head_lr_factor: see `gald.optimizer.parameter_groups`.
        decay_norm_and_bias: see `gald.optimizer.parameter_groups`.
        layer_decay: see `gald.optimizer.parameter_groups`.
        seed: seed of dropout, combined with the position in the training.
        provenance: plain data that makes a checkpoint self-contained (resolved config, class
            names, palette); saved under the key `gald`.

    Attributes:
        compiled: the compiled forward pass of the network, for training; None without one.
        last_validation: counts of the last validation, once it has run.
        seconds_before: seconds up to the checkpoint from which this process resumes.
    """

    def __init__(  # noqa: PLR0913  all parts of a training meet here
        self,
        model: Network,
        loss: nn.Module,
        inference: Inference,
        optimizer: OptimizerFactory,
        scheduler: Callable[[Optimizer, int], LRScheduler],
        class_names: Sequence[str],
        head_lr_factor: NotNegative = 1.0,
        decay_norm_and_bias: bool = True,
        layer_decay: Annotated[float, Range(above=0, most=1)] | None = None,
        seed: Seed = 0,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        evaluator = Evaluator([ConfusionMatrix(len(class_names))])
        super().__init__(model, inference, evaluator, class_names)
        model.stop_idle_parameters()
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.head_lr_factor = head_lr_factor
        self.decay_norm_and_bias = decay_norm_and_bias
        self.layer_decay = layer_decay
        self.seed = seed
        self.provenance = provenance or {}
        self.compiled: Callable[[Tensor], SegOutput] | None = None
        self.step_loss = StepLoss()
        self.last_validation: LastValidation | None = None
        self._last_metrics: list[CountMetric] = []
        self.seconds_before = 0.0
        self.started = time.monotonic()

    @override
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by position, so that a resumed run draws the same as an unbroken one."""
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute this micro-batch's part of the loss, and log the loss of the whole step.

        The parts of all micro-batches and devices sum to the mean over the labelled pixels of the
        global batch. Lightning divides a part by the number of accumulated batches, and DDP divides
        the gradient by the number of processes, so both are multiplied here. Nothing is read from
        the device, so a GPU never waits for the host.
        """
        accumulated, processes = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if accumulated == processes == 1:
            self.step_pixels = batch["pixels"]
        elif batch_idx % accumulated == 0:
            self.step_pixels = sum_over_processes(batch["step_pixels"])
        image = shown_to(self.model, batch["image"], batch["mask"])
        reuse_memory(image)
        out = (self.compiled or self.model)(image)
        part = self.loss(out, batch["mask"], batch["pixels"], self.step_pixels)
        self.step_loss.add(part, batch["name"])
        if (batch_idx + 1) % accumulated == 0:
            total = sum_over_processes(self.step_loss.total())
            # With prog_bar=True, Lightning would read it from the device at every step.
            self.log("train/loss", total, batch_size=len(batch["image"]))
            self.step_loss.finish(total, self.global_step)
        return part * accumulated * processes

    @override
    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Let Lightning validate the last step of `trainer.max_steps`, also within an epoch."""
        if 0 < self.trainer.max_steps <= self.global_step:
            self.trainer.should_stop = True

    @override
    def on_validation_start(self) -> None:
        self._check_finite()
        self.last_validation = None
        if self._last_metrics and self._is_last_step():
            self.last_validation = LastValidation(self._last_metrics)

    def count_last_validation(self, metrics: list[CountMetric]) -> None:
        """Let the last validation count the metrics of the final evaluation; it logs nothing more.

        A validation is the last one if no step of the training is left after it. One that turns
        out to be the last, because the training is stopped early, counts mIoU only.
        """
        self._last_metrics = metrics

    def _is_last_step(self) -> bool:
        trainer: Any = self.trainer
        # With overfit_batches the loops of training and evaluation choose images differently.
        unlike = trainer.sanity_checking or trainer.fast_dev_run or trainer.overfit_batches
        if trainer.state.fn != "fit" or unlike:
            return False
        return self.global_step >= trainer.estimated_stepping_batches

    @property
    @override
    def needs_confidence(self) -> bool:
        last = self.last_validation
        return super().needs_confidence or (last is not None and last.needs_confidence)

    @override
    def count(self, prediction: LabelMap, mask: Tensor, names: list[str]) -> None:
        super().count(prediction, mask, names)
        if self.last_validation is not None:
            self.last_validation.update(self.model, prediction, mask, names)

    @override
    def stop_counting(self) -> None:
        super().stop_counting()
        if self.last_validation is not None:
            self.last_validation.stop()

    @override
    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.last_validation is not None:
            self.last_validation.compute(self.class_names, self.trainer)
        # The counts of all processes are summed already; every process logs the same numbers.
        for name, value in self.evaluator.scores.items():
            self.log(f"val/{name}", float(value), prog_bar=name == "miou")

    @override
    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(
            self.model,
            self.make_optimizer,
            self.head_lr_factor,
            self.decay_norm_and_bias,
            self.layer_decay,
        )
        clip = self.trainer.gradient_clip_val
        refuse_fused_clipping(optimizer, str(self.trainer.precision), clip)
        still = [p for p in self.model.parameters() if not p.requires_grad]
        say = rank_zero_only(Console(markup=False, emoji=False).print)
        say(group_table(optimizer.param_groups, still))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = {"scheduler": self.make_scheduler(optimizer, steps), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @override
    def on_train_start(self) -> None:
        """Follow the schedule of this training also at the first step of a resumed run.

        A checkpoint holds the next step's learning rate of the schedule that it was saved with;
        the schedule differs if the training was made longer.
        """
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            rates = [
                base * scale(scheduler.last_epoch)
                for base, scale in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            ]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_finite()
        # Of a file of weights alone Lightning tells no callback, so averages would be left out.
        averages = [] if "callbacks" in checkpoint else self.trainer.callbacks  # ty: ignore[missing-attribute]
        for average in averages:
            if isinstance(average, WeightAveraging):
                average.on_save_checkpoint(self.trainer, self, checkpoint)
                for key in ("current_model_state", "averaging_state"):  # absent after training
                    checkpoint.pop(key, None)
        checkpoint["gald"] = self.provenance
        checkpoint["steps_per_epoch"] = self._steps_per_epoch()
        checkpoint["seconds"] = self.seconds_before + time.monotonic() - self.started

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = renew_weights(checkpoint["state_dict"])
        seconds = checkpoint.get("seconds")
        self.seconds_before = float(seconds) if isinstance(seconds, int | float) else 0.0
        before = checkpoint.get("steps_per_epoch")  # missing in checkpoints of gald 0.1.0
        if self._trainer is not None and before not in (None, now := self._steps_per_epoch()):
            raise ValueError(
                f"an epoch of the run has {before} steps, but now it has {now}: the number of "
                "training images has changed; restore them, or start a new run"
            )

    def _check_finite(self) -> None:
        """Refuse to validate or save a network that is ruined, although every loss was finite."""
        self.step_loss.check()
        if defect := find_defect(self.model.state_dict()):
            raise NotFiniteError(f"{defect} after step {self.global_step}; {REMEDY}")

    def _steps_per_epoch(self) -> float:
        """Return the steps of a whole epoch, whatever ends the training."""
        trainer: Any = self.trainer
        trainer.fit_loop.setup_data()  # a resumed run gets here before its data is loaded
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
