"""Progress output of a training on the screen."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override


def progress() -> ProgressBar:
    """Return a progress bar for a terminal, or a printer of one line per epoch for log files."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else EpochLines()


class EpochLines(ProgressBar):
    """Progress callback that prints one line per validation: epoch, step, loss, mIoU, time."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.monotonic()

    def disable(self) -> None:
        """Do nothing: only the first process prints anyway."""

    @rank_zero_only
    @override
    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.start = time.monotonic()

    @rank_zero_only
    @override
    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        metrics = trainer.callback_metrics
        keys = [key for key in ("train/loss", "val/miou") if key in metrics]
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"step {trainer.global_step}",
            *(f"{key} {float(metrics[key]):.4f}" for key in keys),
            f"{time.monotonic() - self.start:.0f} s",
            sep="  ",
            flush=True,
        )
