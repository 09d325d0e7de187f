"""Lock of a run folder: one run at a time writes there."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from gald.run.fresh import LOCK, has_begun
from gald.run.leftovers import clean_leftovers
from gald.run.new_folders import no_empty_folder


@contextmanager
def own_folder(folder: Path) -> Generator[bool]:
    """Create a run folder, and own it until the block ends or the process dies.

    The first process of a run owns the folder for the others. It removes what killed
    processes left. A folder that is new, and empty when the block ends with an error, is removed.

    Yields:
        whether a run began in the folder before.

    Raises:
        ValueError: another run owns the folder, or it cannot be created.
    """
    if getattr(rank_zero_only, "rank", 0):  # set from the variables of the launcher
        yield True
        return
    with no_empty_folder(folder), _own(folder) as began:
        yield began


@contextmanager
def _own(folder: Path) -> Generator[bool]:
    owner = folder / LOCK
    began = has_begun(folder)
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
        with suppress(OSError):  # the disk is full; the lock holds without the text
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        clean_leftovers(folder)
        clean_leftovers(folder / "checkpoints")
        (folder / "checkpoints" / "last.ckpt.part").unlink(missing_ok=True)  # of gald 0.1
        yield began
    except Exception:
        if not began and not (folder / "checkpoints").exists():
            owner.unlink(missing_ok=True)  # so that a refused run is not taken for one that began
        raise
    finally:
        lock.release()
