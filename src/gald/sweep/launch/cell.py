"""Process of one cell: `gald train` that ends when its parent process has ended.

Lightning starts the further processes of a run with this module's name and arguments. The arguments
name one resolved config in the cell's folder, so each process joins this run and never starts the
sweep again.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock

CONFIG = "cell"  # name of the resolved config in the cell's folder, without .yaml
LAUNCHER = "GALD_LAUNCHER"  # environment variable: id of the process that started the cell
POLL = 0.5  # seconds


def main() -> None:
    """Watch the parent process, wait until an earlier attempt has ended, and train."""
    first = "LOCAL_RANK" not in os.environ
    parent = int(os.environ[LAUNCHER]) if first else os.getppid()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    folder = Path(sys.argv[sys.argv.index("--config-path") + 1])
    lock = FileLock(folder / "cell.lock", timeout=60)
    if first:
        lock.acquire()

    from gald.cli import run

    run("gald.train:main", sys.argv[1:])


def _end_with_parent(parent: int) -> None:
    """Kill the whole process group once `parent` is no longer the parent process."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
