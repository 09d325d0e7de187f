"""Process that imports once what cells need, and copies itself for each of them.

It is started as `python -m gald.sweep.launch.warm_server CHANNEL PRELOAD ENTRY...`: the number of
its end of a socket, the module with the function `preload` ("" for none), and what a cell would be
started with after `python`. It answers one question after the other, and ends when the launcher
has closed the other end. `gald.sweep.launch.warm` asks.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gald.sweep.launch.leave import be_called_last

LIMIT = 2**20  # bytes of a question
PARENT = "GALD_LAUNCHER"  # environment variable: id of the process that started the cell
OWN = ("gald", "hydra_plugins")
GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dxg")  # files that CUDA, ROCm and the WSL open


def main() -> None:
    """Import, answer the launcher, and in each copy run a cell as `python ENTRY...` would."""
    be_called_last()  # before the libraries register their own ends
    channel = socket.socket(fileno=int(sys.argv[1]))
    preload, entry = sys.argv[2], sys.argv[3:]
    if preload:
        importlib.import_module(preload).preload()
    gc.collect()
    gc.freeze()  # otherwise each collection in a cell would copy the memory that it shares
    _stop_threads()
    words = _serve(channel, _code())
    if words is None:  # the launcher has ended
        os._exit(0)
    atexit.register(gc.unfreeze)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(Path(words[0]).name)  # what top and ps -A show
    if entry[0] == "-m":
        sys.argv = [entry[1], *words]
        runpy.run_module(entry[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [entry[0], *words]
        runpy.run_path(entry[0], run_name="__main__")


def _serve(channel: socket.socket, imported: dict[str, int]) -> Sequence[str] | None:
    """Answer questions until the launcher has gone; in a copy, return the words of its cell."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, LIMIT, 1)
        if not message:
            return None
        question = json.loads(message)
        if "end_of" in question:
            options = 0 if question["wait"] else os.WNOHANG
            pid, status = os.waitpid(question["end_of"], options)
            answer: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        elif _code() != imported:  # a cell runs the code that there is at its start
            answer = {"changed": True}
        elif reason := why_not():
            answer = {"refused": reason}
        else:
            try:
                pid = _copy(channel, files[0], question["variables"])
            except OSError as error:
                answer = {"errno": error.errno, "strerror": error.strerror}
            else:
                if pid == 0:
                    return question["words"]
                answer = {"pid": pid}
        for file in files:
            os.close(file)
        channel.send(json.dumps({"number": question["number"], **answer}).encode())


def _code() -> dict[str, int]:
    """Return the times of the imported files of gald."""
    times: dict[str, int] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in OWN and file is not None:
            path = Path(file)
            times[file] = path.stat().st_mtime_ns if path.exists() else 0
    return times


def why_not() -> str | None:
    """Return why this process must not be copied; None if it can."""
    tasks = Path("/proc/self/task")
    if (count := len(list(tasks.iterdir()))) > 1:
        return f"its imports have left {count} threads"
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder itself was open while it was read
            if (target := str(file.readlink())).startswith(GPUS):
                return f"its imports have opened {target}"
    return None


def _stop_threads() -> None:
    """Let libraries stop the threads that they start on import, as OpenBLAS does before a fork."""
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _copy(channel: socket.socket, log: int, variables: dict[str, str]) -> int:
    """Fork; the copy leads a session of its own, and has output and variables of its cell.

    What the imports have printed comes first in the log, as in a process that imports itself.
    """
    parent = os.getpid()
    ready, done = os.pipe()
    pid = os.fork()
    if pid:
        os.close(done)
        os.read(ready, 1)  # until the copy has its session, by which it can be killed
        os.close(ready)
        return pid
    os.setsid()
    os.close(ready)
    os.close(done)
    channel.close()
    printed = os.pread(1, os.fstat(1).st_size, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.write(1, printed)
    os.environ.update(variables | {PARENT: str(parent)})
    return 0


if __name__ == "__main__":
    main()
