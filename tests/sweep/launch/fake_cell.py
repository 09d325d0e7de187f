"""Replacement for `gald.sweep.launch.cell`: its seed selects how it ends, within moments."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

folder = Path(sys.argv[sys.argv.index("--config-path") + 1])
config = yaml.safe_load((folder / "cell.yaml").read_text())
checkpoint = folder / "checkpoints" / "last.ckpt"
resumed = "ckpt_path=last" in sys.argv
starts = folder / "starts.txt"
with starts.open("a") as file:
    file.write(f"{'resumed' if resumed else 'fresh'} {' '.join(sys.argv[5:])}\n")
attempt = len(starts.read_text().splitlines())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / "pids.txt").write_text(f"{os.getpid()} {child.pid}")
beat = {"stage": "train", "step": 1, "steps": 2, "miou": 0.25, "micro_batch_size": 4}
(folder / "heartbeat.json").write_text(json.dumps(beat))


def finish():
    (folder / "results.json").write_text(json.dumps({"val/miou": 0.1 * config["seed"]}))
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
    if "data.micro_batch_size=1" in sys.argv:
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
}[config["seed"]]()
