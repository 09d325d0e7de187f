"""A cell ends with the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
import os, subprocess, sys, threading, time
from gald.sweep.launch import cell
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
parent = int(os.environ[cell.LAUNCHER])
threading.Thread(target=cell._end_with_parent, args=(parent,), daemon=True).start()
print(os.getpid(), other.pid, flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys, time
environment = os.environ | {"GALD_LAUNCHER": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, env=environment)
time.sleep(600)
"""


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_cell_and_its_children_end_when_the_launcher_is_killed():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(runs(pid) for pid in pids)
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(runs(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(runs(pid) for pid in pids)
