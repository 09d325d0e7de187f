"""The process of one cell: `gald train` that ends when whoever started it is gone.

Lightning starts the further processes of a run by this module's name and arguments. Those name one
resolved config in the cell's folder, so each is this one run and never the sweep again.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock

CONFIG = "cell"  # the name of the resolved config in the cell's folder, without .yaml
LAUNCHER = "GALD_LAUNCHER"  # names the process that started the cell
POLL = 0.5  # seconds


def main() -> None:
    """Watch the parent, wait for an earlier attempt to be gone, and train."""
    first = "LOCAL_RANK" not in os.environ
    parent = int(os.environ[LAUNCHER]) if first else os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    folder = Path(sys.argv[sys.argv.index("--config-path") + 1])
    lock = FileLock(folder / "cell.lock", timeout=60)
    if first:
        lock.acquire()

    from gald.cli import run

    run("gald.train:main", sys.argv[1:])


def _end_with(parent: int) -> None:
    """Kill the whole process group once `parent` is no longer the parent, however it ended."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
