"""Partial files and folders of processes that were killed."""

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, which does not delete files that are in use
    fcntl = None

_FILE = re.compile(r"(?P<name>.+)\.(?P<pid>\d+)\.part")
# In a folder that the user named, below which files of others may lie: no other program's name.
_OUTPUT = re.compile(r".+\.(?P<pid>\d+)\.gald-part(?:\.\w+)?")
_FOLDER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.part")


def partial_name(name: str) -> str:
    """Return the name of a file of this process until it is complete."""
    return f"{name}.{os.getpid()}.part"


def partial_output(path: Path) -> Path:
    """Return the path of an output of this process until it is complete, with its suffix."""
    return path.with_name(f"{path.stem}.{os.getpid()}.gald-part{path.suffix}")


@contextmanager
def locked(partial: Path) -> Generator[None]:
    """Mark a partial file or folder as being written, on all machines that share the disk."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        with suppress(OSError):  # the file system has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def clean_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left of the files of a folder; keep what is being written.

    Args:
        folder: the folder.
        name: only leftovers of this file; None for all.
    """
    with suppress(OSError):  # another process may be cleaning, or the folder may be read-only
        for path in list(folder.iterdir()):
            match = (_FOLDER if path.name.startswith(".") else _FILE).fullmatch(path.name)
            if match is not None and name in (None, match["name"]):
                _remove_unless_written(path, int(match["pid"]))


def clean_partial_outputs(folder: Path) -> None:
    """Remove what killed processes left of outputs below a folder; keep what is being written."""
    with suppress(OSError):
        for path in list(folder.rglob("*.gald-part*")):
            if match := _OUTPUT.fullmatch(path.name):
                _remove_unless_written(path, int(match["pid"]))


def _remove_unless_written(path: Path, pid: int) -> None:
    if path.is_symlink() or _is_written(path, pid):
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_written(partial: Path, pid: int) -> bool:
    """Return whether the process that writes a partial file may still live."""
    try:
        written = partial.stat().st_mtime
    except FileNotFoundError:
        return True
    return _is_locked(partial) or _lives(pid, written)


def _is_locked(partial: Path) -> bool:
    if fcntl is None:
        return False
    try:
        descriptor = os.open(partial, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(descriptor)
    return False


def _lives(pid: int, written: float) -> bool:
    """Return whether a process of this machine lives that could have written at a time.

    The number of a dead process is given to another one sooner or later, in a container at once.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/stat").read_text().partition("btime ")[2].split()[0]
    except (OSError, IndexError):  # not Linux
        return True
    started = int(boot) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] != "Z" and started <= written + 2  # of the clocks
