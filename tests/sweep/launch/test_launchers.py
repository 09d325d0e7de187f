"""Cells under the launchers of gald, joblib and submitit: processes, GPUs and signals."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from gald.sweep.cells import Sweep
from gald.sweep.state import read_state

from .test_traps import TINY, processes, start, wait_until


def need(launcher):
    if launcher != "gald":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")


def end(process, folder):
    """Wait until a launcher has ended well; return its sweep."""
    assert process.wait(timeout=580) == 0, (folder / "launcher.log").read_text()
    sweep = Sweep.load(folder / "runs" / "train")
    assert {read_state(sweep.place(cell)).state for cell in sweep.cells} == {"done"}
    assert processes(folder) == []
    return sweep


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gald", "joblib", "submitit_local"])
def test_cells_of_two_processes_run_under_every_launcher(tmp_path, name):
    need(name)
    words = ["trainer=ddp_cpu", "trainer.precision=bf16-mixed", "seed=0,1"]
    sweep = end(start(tmp_path, *TINY, *words, f"hydra/launcher={name}"), tmp_path)
    assert sweep.factors == {"seed": ["0", "1"]}


@pytest.mark.slow
def test_job_of_two_tasks_of_submitit_is_one_cell_of_two_processes(tmp_path):
    need("submitit_local")
    words = ["trainer=ddp_cpu", "seed=0,1", "hydra/launcher=submitit_local"]
    words.append("hydra.launcher.tasks_per_node=2")
    sweep = end(start(tmp_path, *TINY, *words), tmp_path)
    for cell in sweep.cells:
        results = json.loads((sweep.place(cell) / "results.json").read_text())
        assert results["val/receipt"]["processes"] == 2
        assert read_state(sweep.place(cell)).attempts == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["train"]


@pytest.mark.slow
def test_job_with_more_tasks_than_the_cell_has_processes_is_refused(tmp_path):
    need("submitit_local")
    words = ["seed=0", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"]
    assert start(tmp_path, *TINY, *words).wait(timeout=300) == 1
    sentence = "hydra.launcher.tasks_per_node is 2, but trainer.devices is 1"
    assert sentence in (tmp_path / "launcher.log").read_text()


@pytest.mark.slow
def test_signal_of_submitit_saves_the_cell_and_queues_its_job_again(tmp_path):
    need("submitit_local")
    words = ["seed=0", "trainer.max_epochs=40", "callbacks.last.minutes=60"]
    process = start(tmp_path, *TINY, *words, "hydra/launcher=submitit_local")
    wait_until(lambda: any(path.read_text().count("\n") > 8 for path in metrics(tmp_path)))
    (task,) = (pid for pid in processes(tmp_path) if is_task(pid))
    os.kill(task, signal.SIGUSR2)
    sweep = end(process, tmp_path)
    (cell,) = sweep.cells
    assert read_state(sweep.place(cell)).attempts == 2
    assert "stopped by SIGTERM at step" in (sweep.place(cell) / "log.txt").read_text()
    logs = "".join(path.read_text() for path in tmp_path.rglob("*_log.*"))
    assert "Caught signal SIGUSR2" in logs and "Requeued job" in logs


def metrics(folder):
    return list(folder.rglob("metrics.csv"))


def is_task(pid):
    return b"submitit.core._submit" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are pretended")
@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_cells_of_other_launchers_get_a_gpu_each(tmp_path, name, monkeypatch):
    need(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # with the locks of this test alone
    gpus = tmp_path / "gpus"
    words = ["trainer.accelerator=auto", "seed=0,1", f"hydra/launcher={name}"]
    words.append(f"+callbacks.wait={{_target_:faults.Rendezvous,folder:{gpus},cells:2}}")
    end(start(tmp_path, *TINY, *words), tmp_path)
    assert sorted(path.read_text() for path in gpus.iterdir()) == ["0", "1"]
