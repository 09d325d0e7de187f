"""What a waiting person sees."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override


def progress() -> ProgressBar:
    """A progress bar on a terminal, else one line an epoch: log files stay readable."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else EpochLines()


class EpochLines(ProgressBar):
    """Prints one line after every validation: epoch, step, loss, mIoU, time."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.monotonic()

    def disable(self) -> None:
        """Nothing to switch off: further processes print nothing anyway."""

    @rank_zero_only
    @override
    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.start = time.monotonic()

    @rank_zero_only
    @override
    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        seen = trainer.callback_metrics
        shown = [f"{k} {float(seen[k]):.4f}" for k in ("train/loss", "val/miou") if k in seen]
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"step {trainer.global_step}",
            *shown,
            f"{time.monotonic() - self.start:.0f} s",
            sep="  ",
            flush=True,
        )
