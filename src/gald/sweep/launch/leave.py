"""Quick end of a process: its memory is given back at once, and not object by object.

Taking the modules of a training apart takes more than a second of CPU time, and more in a copy of
a warm process, which must first copy the memory that it frees.
"""

import atexit
import gc
import io
import logging
import os
import sys
from collections.abc import Callable
from functools import cache

_codes: list[int] = []  # exit code of this process, once it is known


def leave_quickly(main: Callable[[], None]) -> None:
    """Run a program, and end its process as Python does, except for its memory.

    Threads are waited for, functions of `atexit` are called, files are flushed, and the exit code
    is the same. A program that ends with an exception or a text ends in Python's own way.
    """
    be_called_last()
    try:
        main()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            _codes.append((stop.code or 0) & 0xFF)
        raise
    _codes.append(0)


@cache
def be_called_last() -> None:
    """Register the quick end: `atexit` calls last what was registered first."""
    atexit.register(_leave)


def _leave() -> None:
    if not _codes:
        return
    logging.shutdown()  # registered even before
    try:
        for file in (sys.stdout, sys.stderr, *filter(_is_open, gc.get_objects())):
            file.flush()
    except (OSError, ValueError):
        return  # Python says so and changes the exit code
    os._exit(_codes[0])


def _is_open(thing: object) -> bool:
    writers = (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
    return type(thing) in writers and not thing.closed  # ty: ignore[missing-attribute]
