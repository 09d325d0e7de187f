"""Ownership of a cell: one process at a time runs it, whatever launcher it belongs to."""

import json
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from gald.run.atomic import atomic_file
from gald.sweep.state import OWNER, SIGN_OF_LIFE, Owner, read_owner

LOCK = "owner.lock"


class Claim:
    """Ownership of a cell, until it is released or the process dies.

    A lock decides between processes. The file `owner.json` says who the owner is; it also keeps
    others away for a while on clusters where a lock is not seen by other machines. A thread
    touches it as a sign of life, whatever the process does meanwhile.

    Args:
        folder: run folder of the cell.
        lock: the lock, held.
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder, self.lock = folder, lock
        self.owner = Owner.this_process()
        content = asdict(self.owner)
        del content["age"]
        with atomic_file(folder / OWNER) as partial:
            partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._show_life, name="claim", daemon=True)
        self._thread.start()

    def _show_life(self) -> None:
        while not self._released.wait(SIGN_OF_LIFE):
            with suppress(OSError):
                os.utime(self.folder / OWNER)

    def release(self) -> None:
        """Give the cell back."""
        self._released.set()
        self._thread.join()  # it must not touch the record of the next owner
        with suppress(OSError):
            (self.folder / OWNER).unlink(missing_ok=True)
        self.lock.release()


def claim(folder: Path) -> Claim | None:
    """Take a cell; None if another process runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    owner = read_owner(folder)
    if owner is not None and owner.alive and owner.pid != os.getpid():
        lock.release()
        return None
    return Claim(folder, lock)


@contextmanager
def claimed(folder: Path) -> Generator[bool]:
    """Take a cell for the block; yields whether it was free."""
    held = claim(folder)
    try:
        yield held is not None
    finally:
        if held is not None:
            held.release()
