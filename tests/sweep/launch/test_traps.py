"""Regression tests for traps 4, 5 and 6 of Hydra, torchrun and Lightning together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gald.data.loading.sampler import EvalSampler
from gald.sweep.cells import Sweep
from gald.sweep.state import read_state

TINY = [
    "data=synthetic",
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=16",
    "data.val_count=3",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "metrics=miou",
    "test=false",
    "logger=csv",
    "report=false",
]
FOUR = [*TINY, "trainer=ddp_cpu", "+callbacks.fault._target_=faults.Fault"]


def start(folder, *overrides):
    """Start a launcher as a process in its own session."""
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with (folder / "launcher.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gald", "train", "-m", *overrides],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def processes(folder):
    """Return the ids of processes with a folder in their command line."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            pids += [int(path.parent.name)] * (str(folder).encode() in path.read_bytes())
        except OSError:  # the process has just ended
            continue
    return pids


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def states(sweep):
    return {
        next(o.partition("kind=")[2] for o in cell.overrides if "kind=" in o): read_state(
            sweep.place(cell)
        )
        for cell in sweep.cells
    }


@pytest.mark.slow
def test_trap_4_no_process_of_a_cell_runs_the_sweep_and_no_failure_hangs_it(tmp_path):
    """Cells of two processes: one crashes, one waits forever, one runs out of memory."""
    faults = "+callbacks.fault.kind=none,crash,hang,memory"
    options = ["hydra.launcher.jobs=2", "hydra.launcher.watchdog_minutes=1.5"]
    process = start(tmp_path, *FOUR, faults, *options)
    assert process.wait(timeout=1200) == 1
    sweep = Sweep.load(tmp_path / "runs" / "train")
    cells = states(sweep)
    assert {kind: cell.state for kind, cell in cells.items()} == {
        "none": "done",
        "crash": "failed",
        "hang": "failed",
        "memory": "done",
    }
    assert "the second process crashed" in cells["crash"].reason
    assert "no progress for 1.5 minutes" in cells["hang"].reason
    assert cells["memory"].micro_batch_size == 1
    assert processes(tmp_path) == []
    # One sweep, and one folder per cell.
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["train"]
    folders = {path.name for path in sweep.path.iterdir() if path.is_dir()}
    assert folders == {cell.folder for cell in sweep.cells}


@pytest.mark.slow
def test_sweep_killed_twice_gives_the_scores_of_an_undisturbed_one(tmp_path):
    """After `kill -9` of the launcher, then of a cell, the command resumes to equal numbers."""
    command = [*TINY, "seed=0,1", "trainer.max_epochs=30", "callbacks.last.minutes=0"]
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
    assert start(calm, *command).wait(timeout=600) == 0

    process = start(rough, *command)
    wait_until(lambda: list(rough.rglob("last.ckpt")))
    process.kill()
    process.wait()
    wait_until(lambda: processes(rough) == [], seconds=10)
    process = start(rough, *command)
    (first,) = rough.rglob("last.ckpt")
    before = first.stat().st_mtime_ns
    wait_until(lambda: first.stat().st_mtime_ns > before)
    for pid in processes(rough):
        os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=600) == 0

    sweeps = [Sweep.load(folder / "runs" / "train") for folder in (calm, rough)]
    assert sweeps[0].cells == sweeps[1].cells
    assert max(read_state(sweeps[1].place(cell)).attempts for cell in sweeps[1].cells) == 3
    for cell in sweeps[0].cells:
        folders = [sweep.place(cell) for sweep in sweeps]
        assert [read_state(folder).state for folder in folders] == ["done", "done"]
        results = [json.loads((folder / "results.json").read_text()) for folder in folders]
        scores = [{k: v for k, v in r.items() if k.startswith("val/")} for r in results]
        for one in scores:
            one.pop("val/receipt", None)  # contains the path of the checkpoint
        assert scores[0] == scores[1]
        tables = [(folder / "metrics.csv").read_text() for folder in folders]
        assert tables[0] == tables[1]
    assert processes(tmp_path) == []


def test_trap_6_no_image_is_evaluated_twice():
    """A padding sampler would evaluate 501 images instead of 500 on three processes."""
    indices = [list(EvalSampler(500, rank, 3)) for rank in range(3)]
    assert sorted(index for part in indices for index in part) == list(range(500))
