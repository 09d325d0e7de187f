"""Progress output of a training on the screen."""

import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from gald.progress import EVERY


def progress() -> ProgressBar:
    """Return a progress bar for a terminal, or a printer of lines for log files."""
    return TrainingBar(leave=True) if sys.stdout.isatty() else ProgressLines()


class TrainingBar(RichProgressBar):
    """Progress bar that shows the newest loss that is known, on a GPU that of the step before."""

    @override
    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        step_loss = getattr(pl_module, "step_loss", None)  # an evaluation has none
        if step_loss is not None and not math.isnan(step_loss.checked):
            items["train/loss"] = step_loss.checked
        return items


class ProgressLines(ProgressBar):
    """Progress callback that prints a line per validation, and one now and then in between."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self.printed = time.monotonic()
        self.first_step = 0

    def disable(self) -> None:
        """Do nothing: only the first process prints anyway."""

    @rank_zero_only
    @override
    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.start = self.printed = time.monotonic()
        self.first_step = trainer.global_step

    @rank_zero_only
    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._is_quiet():
            return
        steps, seconds = trainer.estimated_stepping_batches, time.monotonic() - self.start
        done = trainer.global_step - self.first_step
        left = "" if not done else f"{seconds / done * (steps - trainer.global_step):.0f} s left"
        self._print(_where(trainer), f"of {steps:.0f}", *_scores(trainer, "train/loss"), left)

    @rank_zero_only
    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *more: Any) -> None:
        self._print_batches(trainer, "validation", more[3], trainer.num_val_batches)

    @rank_zero_only
    @override
    def on_test_batch_end(self, trainer: pl.Trainer, *more: Any) -> None:
        self._print_batches(trainer, "test", more[3], trainer.num_test_batches)

    @rank_zero_only
    @override
    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        scores = _scores(trainer, "train/loss", "val/miou")
        self._print(_where(trainer), *scores, f"{time.monotonic() - self.start:.0f} s")

    def _is_quiet(self) -> bool:
        return time.monotonic() - self.printed < EVERY

    def _print_batches(self, trainer: pl.Trainer, what: str, batch: int, totals: Any) -> None:
        if self._is_quiet():
            return
        total = totals if isinstance(totals, int | float) else sum(totals)
        self._print(f"{what}: {batch + 1} of {total:.0f} batches")

    def _print(self, *words: str) -> None:
        self.printed = time.monotonic()
        print(*filter(None, words), sep="  ", flush=True)


def _where(trainer: pl.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}"


def _scores(trainer: pl.Trainer, *names: str) -> list[str]:
    found = trainer.callback_metrics
    return [f"{name} {float(found[name]):.4f}" for name in names if name in found]
