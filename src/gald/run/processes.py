"""Processes of one run on one machine: when one is killed, the others end at once."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytorch_lightning as pl

FIRST = "GALD_FIRST_PROCESS"  # environment variable: id of the process that starts the others
_POLL = 0.2  # seconds
_RESUME = "repeat the command, with ckpt_path=last if a checkpoint is saved"


@contextmanager
def end_together(trainer: pl.Trainer) -> Generator[None]:
    """Watch the other processes that Lightning starts for a run, until the block ends.

    A process that waits for a killed one would wait for minutes, or be killed without a word.
    """
    done = threading.Event()
    child = any(word.startswith("hydra.job.name=train_ddp_process") for word in sys.argv)
    if child and FIRST in os.environ:
        threading.Thread(
            target=_watch_first, args=(int(os.environ[FIRST]), done), daemon=True
        ).start()
    elif trainer.strategy.launcher is not None and trainer.world_size > 1:
        os.environ[FIRST] = str(os.getpid())
        threading.Thread(target=_watch_others, args=(trainer, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch_first(first: int, done: threading.Event) -> None:
    while os.getppid() == first:
        if done.wait(_POLL):
            return
    if os.environ.get("LOCAL_RANK") == "1":
        _say(f"the first process of the run was killed, so the others end; {_RESUME}")
    os._exit(1)


def _watch_others(trainer: pl.Trainer, done: threading.Event) -> None:
    while not (processes := getattr(trainer.strategy.launcher, "procs", [])):
        if done.wait(_POLL):
            return
    for rank, process in enumerate(processes, start=1):
        watch = threading.Thread(
            target=_wait_for, args=(rank, process, processes, done), daemon=True
        )
        watch.start()


def _wait_for(
    rank: int,
    process: "subprocess.Popen[bytes]",
    processes: "list[subprocess.Popen[bytes]]",
    done: threading.Event,
) -> None:
    code = process.wait()
    if code >= 0 or done.is_set():  # a process that fails says why itself
        return
    name = signal.Signals(-code).name
    _say(f"process {rank} of the run was killed ({name}), so the others end; {_RESUME}")
    for other in processes:
        other.kill()
    os.kill(os.getpid(), signal.SIGKILL)  # the main thread may wait for the killed one


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
