"""The newest state of a run, so that whatever ends it costs minutes at most."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from typing_extensions import override

from gald.run.preemption import PREEMPTED, SIGNALS


class LastCheckpoint(Checkpoint):
    """Saves a run's newest state after every epoch, every few minutes, and before a stop.

    SIGTERM and SIGUSR1, by which clusters announce that they take a machine away, end the process
    with exit code 75 as soon as the state after the current step is saved; during a validation
    that is after it. A run resumed from the file goes on with the next batch. The file is replaced
    in one move, so it is whole at any time.

    Args:
        path: the file.
        minutes: most minutes of training between two saves.
    """

    def __init__(self, path: str, minutes: float = 10.0) -> None:
        self.path = Path(path)
        self.minutes = minutes
        self.saved_at = time.monotonic()
        self.signal: int | None = None
        self.flush = self.leave = False

    @override
    def on_train_start(self, *_: object, **__: object) -> None:
        self.saved_at = time.monotonic()
        self._listen()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        # Gradients that wait for further batches are in no checkpoint; and after an epoch's last
        # batch Lightning would resume past the validation that is still to come.
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        due = time.monotonic() - self.saved_at > 60 * self.minutes
        if stop or trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer)
            self.leave = stop

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        if self.flush:  # the row of the step that was saved, which is logged after it
            self.flush = False
            for logger in trainer.loggers:
                logger.save()
        if self.leave:
            self._leave(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self._save(trainer)
        if trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False):
            self._leave(trainer)

    @override
    def on_validation_start(self, *_: object, **__: object) -> None:
        self._listen()

    @override
    def on_test_start(self, *_: object, **__: object) -> None:
        self._listen()

    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        # Training is over and saved, only the judging is to be repeated. The first process leaves
        # alone: another that left would let it wait for an answer.
        if self.signal is not None and trainer.state.fn != "fit" and trainer.is_global_zero:
            self._leave(trainer)

    @override
    def on_test_batch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self.on_validation_batch_end(trainer)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self.signal is not None and not isinstance(exception, SystemExit):
            self._leave(trainer)  # a worker or another process went by the same signal, unprepared

    def _listen(self) -> None:
        # In place of Lightning's own handler, whose broadcast can meet another collective.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._notice)

    def _notice(self, number: int, _: object) -> None:
        self.signal = number

    def _save(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        partial = self.path.with_name(f"{self.path.name}.part")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.path)
        self.saved_at = time.monotonic()
        self.flush = True

    def _leave(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            sys.exit(0)  # Lightning kills the first process when another ends with an error
        name = signal.Signals(self.signal).name if self.signal else "a signal to another process"
        print(
            f"stopped by {name} at step {trainer.global_step}; ckpt_path=last "
            f"output_dir={self.path.parent.parent} goes on",
            flush=True,
        )
        sys.exit(PREEMPTED)
