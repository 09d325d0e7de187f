"""Cells of a sweep as jobs of a real SLURM."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gald.sweep.cells import Sweep
from gald.sweep.state import read_state

pytestmark = pytest.mark.cluster

GALD = str(Path(sys.executable).with_name("gald"))
TINY = (
    "data.size=[48,64] data.train_transform.crop_size=[40,48] data.train_count=16 "
    "data.val_count=3 data.global_batch_size=4 data.num_workers=0 model.channels=16 "
    "model.backbone.name=test_resnet trainer.accelerator=cpu metrics=miou test=false logger=csv"
)


def plan(slurm, folder, words, script=""):
    """Declare a sweep in `grid` by a job, so that the job's environment is tried too."""
    job = slurm.submit(folder, f"gald sweep plan {TINY} {words} --to grid\n{script}")
    assert slurm.wait(job) == ["COMPLETED"], output(folder)
    return Sweep.load(folder / "grid")


def output(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))


def states(sweep):
    return [read_state(sweep.place(cell)).state for cell in sweep.cells]


def wait_until(condition, what, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took too long"
        time.sleep(0.2)


def test_job_array_runs_each_cell_once(slurm, tmp_path):
    sweep = plan(slurm, tmp_path, "trainer.max_epochs=1 seed=0,1,2,3")
    script = "gald sweep run grid --cell $SLURM_ARRAY_TASK_ID"
    job = slurm.submit(tmp_path, script, "--array=0-3")
    assert slurm.wait(job) == ["COMPLETED"] * 4, output(tmp_path)
    assert states(sweep) == ["done"] * 4
    # The same array again finds every cell done.
    job = slurm.submit(tmp_path, script, "--array=0-3")
    assert slurm.wait(job) == ["COMPLETED"] * 4
    assert [read_state(sweep.place(cell)).attempts for cell in sweep.cells] == [1] * 4


def test_preempted_cell_is_requeued_and_ends_as_an_undisturbed_one(slurm, tmp_path):
    words = "trainer.max_epochs=20 seed=0,1 callbacks.last.minutes=60"
    sweep = plan(slurm, tmp_path, words)
    calm = tmp_path / "calm"
    calm.mkdir()
    plan(slurm, calm, words)
    job = slurm.submit(calm, "gald sweep run grid --cell 0")
    assert slurm.wait(job) == ["COMPLETED"], output(calm)
    for kind in ("SIGUSR1", "SIGUSR2"):
        job = slurm.submit(
            tmp_path,
            "trap 'kill -s USR1 $child' USR1\ntrap 'kill -s USR2 $child' USR2\n"
            "gald sweep run grid --cell 0 & child=$!\n"
            "wait $child; code=$?; [ $code -gt 128 ] && { wait $child; code=$?; }\n"
            "[ $code = 75 ] && scontrol requeue $SLURM_JOB_ID && sleep 60\nexit $code",
            "--requeue",
            "--open-mode=append",
        )
        folder = sweep.place(sweep.cells[0])
        before = rows(folder)
        wait_until(lambda: rows(folder) > before + 6, "training")  # noqa: B023
        slurm.call("scancel", "--batch", f"--signal={kind[3:]}", job)
        wait_until(lambda: slurm.states(job) == ["PENDING"], "requeueing")  # noqa: B023
        assert states(sweep)[0] == "pending"
        slurm.call("scancel", job)
        slurm.wait(job)
    job = slurm.submit(tmp_path, "gald sweep run grid --cell 0")
    assert slurm.wait(job) == ["COMPLETED"], output(tmp_path)
    assert read_state(sweep.place(sweep.cells[0])).attempts == 3
    scores = [
        {
            key: value
            for key, value in json.loads((root / "results.json").read_text()).items()
            if key.startswith("val/") and not key.endswith("receipt")
        }
        for root in (folder, calm / "grid" / folder.name)
    ]
    assert scores[0] == scores[1]
    tables = [(root / "metrics.csv").read_text() for root in (folder, calm / "grid" / folder.name)]
    assert tables[0] == tables[1]


def rows(folder):
    """Number of training steps that a cell has logged."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return len(list(csv.DictReader(file)))
    except FileNotFoundError:
        return 0


def test_cell_of_two_tasks_is_one_run_of_two_processes(slurm, tmp_path):
    words = "trainer=slurm trainer.sync_batchnorm=false trainer.precision=32-true "
    words += "trainer.devices=2 trainer.num_nodes=1 trainer.max_epochs=1 seed=0"
    sweep = plan(slurm, tmp_path, words)
    job = slurm.submit(
        tmp_path, "srun gald sweep run grid --cell 0", "--nodes=1", "--ntasks-per-node=2"
    )
    assert slurm.wait(job) == ["COMPLETED"], output(tmp_path)
    folder = sweep.place(sweep.cells[0])
    assert read_state(folder).state == "done"
    results = json.loads((folder / "results.json").read_text())
    assert results["val/receipt"]["processes"] == 2


def test_tasks_without_srun_are_refused_instead_of_waiting_for_each_other(slurm, tmp_path):
    words = (
        "trainer=slurm trainer.sync_batchnorm=false trainer.devices=2 trainer.num_nodes=1 seed=0"
    )
    plan(slurm, tmp_path, words)
    script = "gald sweep run grid --cell 0"
    job = slurm.submit(tmp_path, script, "--nodes=1", "--ntasks-per-node=2")
    assert slurm.wait(job) == ["FAILED"]
    assert "this job has 2 tasks (SLURM_NTASKS), but only one process" in output(tmp_path)


def test_cells_of_two_tasks_under_submitit_are_queued_again_by_its_signal(slurm, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = f"{TINY} trainer=slurm trainer.sync_batchnorm=false trainer.precision=32-true "
    words += "trainer.accelerator=cpu trainer.devices=2 trainer.num_nodes=1 trainer.max_epochs=20 "
    words += "seed=0 callbacks.last.minutes=60 hydra/launcher=submitit_slurm "
    words += "hydra.launcher.partition=cpu hydra.launcher.tasks_per_node=2 "
    words += "hydra.launcher.timeout_min=60 hydra.launcher.max_num_timeout=3"
    with (tmp_path / "launcher.log").open("wb") as log:
        launcher = subprocess.Popen(
            [GALD, "train", "-m", *words.split()],
            cwd=tmp_path,
            env=slurm.environment | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
    root = tmp_path / "runs" / "train"
    wait_until(lambda: (root / "cells.jsonl").exists(), "declaring")
    (folder,) = (Sweep.load(root).place(cell) for cell in Sweep.load(root).cells)
    try:
        wait_until(lambda: rows(folder) > 6, "training")
        (job,) = slurm.call("squeue", "--noheader", "--array", "--states=running", "-o%i").split()
        slurm.call("scancel", "--signal=USR2", job)
        wait_until(lambda: "PENDING" in slurm.states(job.partition("_")[0]), "requeueing")
        state = read_state(folder)
        assert (state.state, state.attempts) == ("pending", 1)
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        assert launcher.wait(timeout=600) == 0, (tmp_path / "launcher.log").read_text()
    finally:
        launcher.kill()
        launcher.wait()
    state = read_state(folder)
    assert (state.state, state.attempts) == ("done", 2)
    results = json.loads((folder / "results.json").read_text())
    assert results["val/receipt"]["processes"] == 2


def test_cell_on_a_node_that_crashes_goes_on_elsewhere(slurm, tmp_path):
    sweep = plan(slurm, tmp_path, "trainer.max_epochs=20 seed=0 callbacks.last.minutes=0")
    folder = sweep.place(sweep.cells[0])
    script = "gald sweep run grid --cell 0"
    job = slurm.submit(tmp_path, script, "--requeue", "--open-mode=append")
    wait_until(lambda: (folder / "checkpoints" / "last.ckpt").exists(), "the first checkpoint")
    slurm.end_node(kill=True)
    wait_until(lambda: not slurm.node_is("allocated", "mixed", "idle"), "noticing the crash")
    slurm.start("slurmd", "-D", "-N", "localhost")
    assert slurm.wait(job, seconds=900) == ["COMPLETED"], output(tmp_path)
    state = read_state(folder)
    assert (state.state, state.attempts) == ("done", 2)
