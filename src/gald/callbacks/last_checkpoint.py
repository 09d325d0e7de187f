"""Checkpoint of the newest training state, so that an interruption costs minutes at most."""

import shlex
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from gald.options.ranges import NotNegative
from gald.run.preemption import INTERRUPTED, PREEMPTED, SIGNALS

REPLACED = ("output_dir=", "ckpt_path=")  # options that the command for resuming states anew


class LastCheckpoint(Checkpoint):
    """Callback that saves the newest state after every epoch, every few minutes and before a stop.

    Clusters send SIGTERM or SIGUSR1 before they take a machine away. The process then finishes the
    current step, saves its state and exits with code 75. If the signal arrives during a validation
    of the training, this happens after the validation. A run resumed from the file continues with
    the next batch. Each save replaces the file atomically, so it is complete at any time. Ctrl-C
    does the same with exit code 130; a second Ctrl-C ends the process at once.

    Args:
        path: the checkpoint file.
        minutes: maximum training time between two saves.
    """

    def __init__(self, path: str, minutes: NotNegative = 10.0) -> None:
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
        # A checkpoint contains no accumulated gradients, and from a checkpoint saved after the
        # last batch of an epoch Lightning would resume without the validation of that epoch.
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        due = time.monotonic() - self.saved_at > 60 * self.minutes
        if stop or trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer)
            self.leave = stop

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        if self.flush:  # the metrics of the saved step are logged only after the save
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
        # Training is finished and saved; only the evaluation must be repeated. Only the first
        # process exits here: it would wait forever for the reply of a process that has exited.
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
            self._leave(trainer)  # the same signal killed a worker or another process first

    @override
    def teardown(self, *_: object, **__: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _listen(self) -> None:
        # Replaces Lightning's handler: its broadcast can collide with another collective.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._notice)
            if self.signal != signal.SIGINT:  # after the first Ctrl-C, a second ends the process
                signal.signal(signal.SIGINT, self._notice)

    def _notice(self, number: int, _: object) -> None:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            say = rank_zero_only(partial(print, flush=True))
            say("saving after this step or validation; press Ctrl-C again to end at once")

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # ty: ignore[missing-attribute]
            return
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
        options = [word for word in sys.argv[1:] if not word.startswith(REPLACED)]
        options += [f"output_dir={self.path.parent.parent}", "ckpt_path=last"]
        print(
            f"stopped by {name} at step {trainer.global_step}; resume with: "
            f"{shlex.join(['gald', 'train', *options])}",
            flush=True,
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(INTERRUPTED if self.signal == signal.SIGINT else PREEMPTED)
