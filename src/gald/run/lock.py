"""Lock of a run folder: one run at a time writes there."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

NAME = "run.lock"


@contextmanager
def own_folder(folder: Path) -> Generator[None]:
    """Create a run folder, and own it until the block ends or the process dies.

    The first process of a run owns the folder for the others.

    Raises:
        ValueError: another run owns the folder.
    """
    if getattr(rank_zero_only, "rank", 0):  # set from the variables of the launcher
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / NAME
    lock = FileLock(owner, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        text = owner.read_text() or "another process"
        raise ValueError(
            f"{folder} is in use by {text}; wait until it ends, or add output_dir=FOLDER"
        ) from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()
