"""Checkpoint of the newest training state, so that an interruption costs minutes at most."""

import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from gald.options.ranges import NotNegative
from gald.run.preemption import INTERRUPTED, SIGNALS, Preempted
from gald.run.resume import resume_command
from gald.run.to_host import ToHost, sum_over_processes


@contextmanager
def _end_of_last_batch(loop: Any) -> Generator[None]:
    """Set Lightning's counters back to the end of the last batch, from where it can resume."""
    progress = (loop.batch_progress.total, loop.batch_progress.current)
    counters = [(part, name) for part in progress for name in ("ready", "completed")]
    counters.append((loop, "_batches_that_stepped"))
    for part, name in counters:
        setattr(part, name, getattr(part, name) - 1)
    last, loop.batch_progress.is_last_batch = loop.batch_progress.is_last_batch, False
    try:
        yield
    finally:
        loop.batch_progress.is_last_batch = last
        for part, name in counters:
            setattr(part, name, getattr(part, name) + 1)


class LastCheckpoint(Checkpoint):
    """Callback that saves the newest state after every epoch, every few minutes and before a stop.

    Clusters send SIGTERM or SIGUSR1 before they take a machine away. The process then finishes the
    current step, saves its state and exits with code 75. Several processes finish one step more, in
    which they agree without waiting for each other. If the signal arrives during a validation of
    the training, this happens after the validation. A run resumed from the file continues with the
    next batch. Each save replaces the file atomically, so it is complete at any time. Ctrl-C does
    the same with exit code 130; a second Ctrl-C ends the process at once.

    Args:
        path: the checkpoint file.
        minutes: maximum training time between two saves.
    """

    def __init__(self, path: str, minutes: NotNegative = 10.0) -> None:
        self.path = Path(path)
        self.minutes = minutes
        self.saved_at = time.monotonic()
        self.signal: int | None = None
        self.due = self.leave = False
        self.asked: ToHost | None = None

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
        wishes = self.signal is not None, time.monotonic() - self.saved_at > 60 * self.minutes
        self.leave, late = wishes if trainer.world_size == 1 else self._agree(trainer, wishes)
        self.due = self.leave or late

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        # Only now are the metrics of the last step logged: a save before them would lose them if
        # the process were killed in between.
        if not self.due:
            return
        self.due = False
        with _end_of_last_batch(trainer.fit_loop.epoch_loop):
            self._save(trainer)
        if self.leave:
            self._leave(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        self.asked = None
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

    def _agree(self, trainer: pl.Trainer, wishes: tuple[bool, bool]) -> tuple[bool, bool]:
        """Tell all processes whether to leave and to save; return what they wished a step ago.

        The answer has had a step's time to arrive, so no process waits for its GPU.
        """
        answer = (False, False) if self.asked is None else self.asked.read().tolist()
        sums = torch.zeros(2, device=trainer.strategy.root_device)
        for place, wish in enumerate(wishes):
            if wish:
                sums[place] = 1
        self.asked = ToHost(sum_over_processes(sums))
        return answer[0] > 0, answer[1] > 0

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
        trainer.save_checkpoint(self.path)
        self.saved_at = time.monotonic()

    def _leave(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            sys.exit(0)  # Lightning kills the first process when another ends with an error
        name = signal.Signals(self.signal).name if self.signal else "a signal to another process"
        print(
            f"stopped by {name} at step {trainer.global_step}; resume with: "
            f"{resume_command(self.path.parent.parent)}",
            flush=True,
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.signal == signal.SIGINT:
            sys.exit(INTERRUPTED)
        raise Preempted(self.signal)
