"""Record of what Python does while a stranger's file is read: writing, processes, sockets, imports.

Python has no way to remove an audit hook, so one hook is added for the whole process and switched.
"""

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
CHANGES += ("os.chmod", "os.chown", "os.utime", "shutil.")
STARTS = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.")
CONNECTS = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")
INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")]
INSTALLED.append(Path(__file__).resolve().parents[2] / "src")
STRANGE = ("antigravity", "this", "pty", "ftplib", "smtplib", "webbrowser", "stranger")

_recording: list[str] | None = None
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording is None:
        return
    if event == "open":
        path, mode, flags = arguments
        written = set(mode or "") & set("wax+") if isinstance(mode, str) else flags & WRITES
        if written and str(path) != os.devnull:
            _recording.append(f"open {path} for writing")
    elif event == "import":
        name = str(arguments[0]).split(".")[0]
        if name in STRANGE:
            _recording.append(f"import {arguments[0]}")
    elif event.startswith((*CHANGES, *STARTS, *CONNECTS)):
        _recording.append(f"{event} {arguments!r}"[:200])


@contextmanager
def audited() -> Iterator[list[str]]:
    """Return the list of everything that is written, started, connected to or strangely imported.

    What is imported from other places than the installed packages is found by the end.
    """
    global _recording, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    before, cached = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    _recording = found = []
    try:
        yield found
    finally:
        _recording = None
        sys.dont_write_bytecode = cached
    for name in set(sys.modules) - before:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not any(Path(file).resolve().is_relative_to(place) for place in INSTALLED):
            found.append(f"import {name} from {file}")
