"""Progress file of a run, to be read by other processes."""

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from gald.run.atomic import write_bytes


class Heartbeat(Callback):
    """Callback that writes the progress of a run to a small JSON file, at most once a second.

    The file contains `stage` (train, validate or test), `step`, `steps` (the total, null before
    training starts), `miou` (best val/miou so far, null before the first validation) and
    `micro_batch_size`.

    Args:
        path: the JSON file; each write replaces it atomically.
        seconds: minimum time between two writes after batches.
    """

    def __init__(self, path: str, seconds: float = 1.0) -> None:
        self.path = Path(path)
        self.seconds = seconds
        self.written_at = -math.inf
        self.steps: int | None = None
        self.best: float | None = None

    @override
    def on_fit_start(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        if self.path.is_file():  # written by the attempt that this run resumes
            with suppress(ValueError, KeyError, TypeError):  # damaged
                self.best = json.loads(self.path.read_bytes())["miou"]
        self._write(trainer, "train", now=True)

    @override
    def on_train_start(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self.steps = int(trainer.estimated_stepping_batches)
        self._write(trainer, "train", now=True)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self._write(trainer, "train")

    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self._write(trainer, "validate")

    @override
    def on_test_batch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self._write(trainer, "test")

    @override
    def on_validation_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        score = trainer.callback_metrics.get("val/miou")
        if score is not None and not math.isnan(score):
            self.best = max(float(score), self.best or 0.0)
        self._write(trainer, "validate", now=True)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, stage: str, now: bool = False) -> None:
        if not now and time.monotonic() - self.written_at < self.seconds:
            return
        self.written_at = time.monotonic()
        images = trainer.datamodule.global_batch_size  # ty: ignore[missing-attribute]
        content = {
            "stage": stage,
            "step": trainer.global_step,
            "steps": self.steps,
            "miou": self.best,
            "micro_batch_size": images // trainer.world_size // trainer.accumulate_grad_batches,
        }
        try:
            write_bytes(self.path, f"{json.dumps(content)}\n".encode())
        except OSError:  # a full disk ends the run when it saves, not before
            with suppress(OSError):
                os.utime(self.path)
