"""Replacement for `gald.sweep.launch.cell`: its seed selects how it ends, within moments."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml
from filelock import FileLock

folder = Path(sys.argv[1])
options = json.loads(sys.argv[2])
size = options["micro_batch_size"]
seed = int(next(word.partition("=")[2] for word in options["overrides"] if "seed=" in word))
checkpoint = folder / "checkpoints" / "last.ckpt"
resumed = checkpoint.is_file()
config = {"data": {"global_batch_size": 8, "micro_batch_size": size}}
(folder / "cell.yaml").write_text(yaml.safe_dump(config))
starts = folder / "starts.txt"
with starts.open("a") as file:
    file.write(f"{'resumed' if resumed else 'fresh'} {size}\n")
attempt = len(starts.read_text().splitlines())
if seed < 1000:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "pids.txt").write_text(f"{os.getpid()} {child.pid}")
beat = {"stage": "train", "step": 1, "steps": 2, "miou": 0.25, "micro_batch_size": 4}
(folder / "heartbeat.json").write_text(json.dumps(beat))


def finish(score=0.1 * seed):
    (folder / "results.json").write_text(json.dumps({"val/miou": score}))
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))


def save_and_leave(*_):
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()
    sys.exit(75)


def crash():
    print("gald: RuntimeError: rank 1 crashed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)  # as Lightning does if a further process fails


def hang():
    time.sleep(600)


def memory():
    if size == 1:
        return finish()
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()
    print("gald: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", flush=True)
    sys.exit(1)


def killed():
    if attempt > 1:
        return finish()
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def wait():
    signal.signal(signal.SIGTERM, save_and_leave)
    if resumed:
        return finish()
    (folder / "ready").touch()
    time.sleep(600)


def always_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def greedy():
    print("RuntimeError: DefaultCPUAllocator: can't allocate memory", flush=True)
    sys.exit(1)


def stray():
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    (folder / "stray.txt").write_text(str(other.pid))
    finish()


def trivial():
    """Work for a moment; note it if another process works on the same cell."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    lock = FileLock(folder / "cell.lock", timeout=60)
    lock.acquire()  # as the process of a real cell, which waits until an earlier one has ended
    mark = folder / "at_work"
    try:
        mark.mkdir()
    except FileExistsError:
        if runs((mark / "pid").read_text()):
            with starts.open("a") as file:
                file.write("twice\n")
    (mark / "pid").write_text(str(os.getpid()))
    time.sleep(0.5)
    (mark / "pid").unlink()
    mark.rmdir()
    finish()


def runs(pid):
    """Whether a process runs; one that was killed stays as a zombie until somebody collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def end_with_parent():
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


def without_score():
    finish(None)


def preempted():
    save_and_leave()


{
    1: finish,
    2: finish,
    3: crash,
    4: hang,
    5: memory,
    6: killed,
    7: wait,
    8: always_killed,
    9: greedy,
    10: preempted,
    11: stray,
    12: without_score,
}.get(seed, trivial)()
