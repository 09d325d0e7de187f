"""Atomic writes: a file or folder appears under its name only when it is complete and on the disk.

The content is written beside its place, to a name that ends in `.PID.part`, flushed to the disk,
and renamed. What a killed process left is removed by the next write of the same file, and by the
next run of the folder.
"""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from gald.run.leftovers import clean_leftovers, locked, partial_name

_MANY = 200  # files of a folder: more are flushed together with everything else on the machine


@contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an error.

    After an error an old file is still there and nothing else remains. The parent folder is
    created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(path.parent, path.name)
    partial = path.with_name(partial_name(path.name))
    try:
        with _named(partial, path):
            partial.touch()
            with locked(partial):
                yield partial
                sync(partial)
                partial.replace(path)
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def new_folder(folder: Path, replaces: bool = False) -> Generator[Path]:
    """Yield an empty folder that is renamed to `folder` when the block ends without an error.

    An error leaves nothing behind, and an old folder as it was.

    Args:
        folder: the folder.
        replaces: whether it replaces a folder that is not empty; the caller has looked inside.

    Raises:
        ValueError: `folder` exists and is not empty.
    """
    if not replaces:
        refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(folder.parent, folder.name)
    scratch = folder.with_name(f".{partial_name(folder.name)}")
    whole = scratch / folder.name
    try:
        with _named(whole, folder):
            whole.mkdir(parents=True)
            with locked(scratch):
                yield whole
                sync_tree(whole)
                if replaces and folder.exists():
                    _swap(folder, whole, scratch / "old")
                else:
                    whole.replace(folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _swap(folder: Path, whole: Path, old: Path) -> None:
    """Move a folder away and a whole one to its place; a folder cannot be renamed onto another."""
    folder.replace(old)
    try:
        whole.replace(folder)
    except BaseException:
        old.replace(folder)
        raise


@contextmanager
def _named(partial: Path, path: Path) -> Generator[None]:
    """Let an error of the disk name the final path; a failed write names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            name = str(error.filename or path)
            error.filename, error.filename2 = name.replace(str(partial), str(path)), None
        raise


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below a folder to the disk."""
    inside = [path for path in folder.rglob("*") if not path.is_symlink()]
    if len(inside) > _MANY and hasattr(os, "sync"):
        os.sync()  # one by one, tens of thousands of small files would take minutes
        return
    for path in [*inside, folder]:
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems of networks cannot flush a folder.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def refuse_filled(folder: Path, remedy: str = "choose another folder") -> None:
    """Raise a ValueError unless a folder is empty or does not exist."""
    with suppress(FileNotFoundError):
        if any(folder.iterdir()) if folder.is_dir() else folder.exists():
            raise ValueError(f"{folder} already holds something; {remedy}")
