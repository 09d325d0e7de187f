"""Lock of a run folder: one run at a time writes there."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from gald.run.new_folders import no_empty_folder

NAME = "run.lock"


@contextmanager
def own_folder(folder: Path) -> Generator[None]:
    """Create a run folder, and own it until the block ends or the process dies.

    The first process of a run owns the folder for the others. A folder that is new, and empty when
    the block ends with an error, is removed.

    Raises:
        ValueError: another run owns the folder, or it cannot be created.
    """
    if getattr(rank_zero_only, "rank", 0):  # set from the variables of the launcher
        yield
        return
    with no_empty_folder(folder), _own(folder):
        yield


@contextmanager
def _own(folder: Path) -> Generator[None]:
    owner = folder / NAME
    is_new = not owner.exists()
    lock = FileLock(owner, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        text = owner.read_text() or "another process"
        raise ValueError(
            f"{folder} is in use by {text}; wait until it ends, or add output_dir=FOLDER"
        ) from None
    except OSError as error:
        raise ValueError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose another "
            "output_dir=FOLDER"
        ) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    except BaseException:
        if is_new:
            owner.unlink(missing_ok=True)
        raise
    finally:
        lock.release()
