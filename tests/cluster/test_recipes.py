"""The scripts for SLURM of docs/scale.md run as they are printed, on smaller machines."""

import json
import re
from pathlib import Path

import pytest

from gald.sweep.state import read_state

from .test_slurm import TINY, output, plan, rows, states, wait_until

pytestmark = pytest.mark.cluster
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def recipe(mark):
    """Options and commands of the script on the page whose #SBATCH line has a mark."""
    pattern = rf"#!/bin/bash\n#SBATCH ([^\n]*{mark}[^\n]*)\n(.*?)```"
    (script,) = re.findall(pattern, PAGE.read_text(), re.DOTALL)
    options, commands = script
    return options.split(), commands


def test_array_is_queued_again_after_a_preemption(slurm, tmp_path):
    sweep = plan(slurm, tmp_path, "trainer.max_epochs=20 seed=0,1 callbacks.last.minutes=60")
    options, commands = recipe("--array")
    small = [word for word in options if not word.startswith(("--gpus", "--cpus", "--array"))]
    assert len(small) == len(options) - 3 and "runs/grid" in commands
    commands = commands.replace("runs/grid", "grid")
    job = slurm.submit(tmp_path, commands, *small, "--array=0-1")
    folder = sweep.place(sweep.cells[0])
    wait_until(lambda: rows(folder) > 6, "training")
    slurm.call("scancel", "--batch", "--signal=USR1", f"{job}_0")
    wait_until(lambda: "PENDING" in slurm.states(job), "requeueing")
    assert slurm.wait(job) == ["COMPLETED"] * 2, output(tmp_path)
    assert states(sweep) == ["done", "done"]
    assert [read_state(sweep.place(cell)).attempts for cell in sweep.cells] == [2, 1]


def test_run_of_several_tasks_is_queued_again_after_a_preemption(slurm, tmp_path):
    options, commands = recipe("--nodes=2")
    small = [word for word in options if not word.startswith(("--nodes", "--ntasks", "--gpus"))]
    small = [word for word in small if not word.startswith("--cpus")]
    assert len(small) == len(options) - 4
    words = "trainer.sync_batchnorm=false trainer.precision=32-true trainer.max_epochs=20"
    words += " callbacks.last.minutes=60 seed=0"
    cpu = f"trainer=slurm {TINY} {words} "
    commands = commands.replace("data=cityscapes", "data=synthetic").replace("trainer=slurm ", cpu)
    assert TINY in commands
    job = slurm.submit(
        tmp_path, commands, *small, "--nodes=1", "--ntasks-per-node=2", "--open-mode=append"
    )
    folder = tmp_path / "runs" / "train" / job
    wait_until(lambda: rows(folder) > 6, "training")
    slurm.call("scancel", "--signal=USR1", job)
    wait_until(lambda: slurm.states(job) == ["PENDING"], "requeueing")
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert slurm.wait(job) == ["COMPLETED"], output(tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == [job]
    results = json.loads((folder / "results.json").read_text())
    assert (results["val/receipt"]["processes"], results["epochs"]) == (2, 20)
