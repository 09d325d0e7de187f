"""Files and folders that are there whole or not at all."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """Yield where to write a file, which takes its name once the block ends without an error.

    An error leaves the old file, if there was one, and nothing else; the folder is made.
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
    """Yield an empty folder to write into, which becomes `folder` once the block ends.

    An error leaves nothing behind.

    Raises:
        ValueError: the folder holds something.
    """
    refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        whole = Path(scratch) / folder.name
        whole.mkdir()
        yield whole
        whole.replace(folder)


def refuse_filled(folder: Path, remedy: str = "choose another folder") -> None:
    """Raise a ValueError unless a folder is empty or not there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} already holds something; {remedy}")
