"""Commands that change the environment in which this program runs, and what it must have."""

import os
import shlex
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]  # of a clone


def is_installed(module: str) -> bool:
    """Return whether Python finds a module, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its package is missing, or half removed
        return False


def require_posix(what: str) -> None:
    """Refuse on Windows what works by the processes and signals of POSIX.

    Raises:
        ValueError: the system is Windows.
    """
    if os.name != "posix":
        raise ValueError(
            f"{what} needs the processes of Linux or macOS, and this is Windows; run gald in the "
            "Windows Subsystem for Linux"
        )


def is_of_make() -> bool:
    """Return whether `make install` created the environment, the only one that make changes."""
    return (_ROOT / "Makefile").is_file() and Path(sys.prefix).resolve() == _ROOT / ".venv"


def make(*words: str) -> str:
    """Return `make` with words, for the folder of the clone unless it is the current one."""
    place = ["-C", str(_ROOT)]
    with suppress(OSError):  # the current folder may be deleted
        place = [] if _ROOT.samefile(Path()) else place
    return shlex.join(["make", *place]) + "".join(f" {word}" for word in words)


def pip(*words: str) -> str:
    """Return `pip install` with words; an environment of uv has no pip of its own."""
    program = ["pip", "install"]
    if not is_installed("pip"):
        program = ["uv", *program, "--python", sys.executable]
    return shlex.join([*program, *words])
