"""Atomic writes: a file or folder appears under its name only when it is complete."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an error.

    After an error an old file is still there and nothing else remains. The parent folder is
    created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Yield an empty folder that is renamed to `folder` when the block ends without an error.

    An error leaves nothing behind.

    Raises:
        ValueError: `folder` exists and is not empty.
    """
    refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        whole = Path(scratch) / folder.name
        whole.mkdir()
        yield whole
        whole.replace(folder)


def refuse_filled(folder: Path, remedy: str = "choose another folder") -> None:
    """Raise a ValueError unless a folder is empty or does not exist."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} already holds something; {remedy}")
