"""Cells of two processes in bf16 run under the launchers of gald, joblib and submitit."""

import pytest

from gald.sweep.cells import Sweep
from gald.sweep.state import read_state

from .test_traps import TINY, processes, start


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gald", "joblib", "submitit_local"])
def test_cells_of_two_processes_run_under_every_launcher(tmp_path, name):
    if name != "gald":
        pytest.importorskip(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher")
    words = ["trainer=ddp_cpu", "trainer.precision=bf16-mixed", "seed=0,1"]
    process = start(tmp_path, *TINY, *words, f"hydra/launcher={name}")
    assert process.wait(timeout=580) == 0, (tmp_path / "launcher.log").read_text()
    sweep = Sweep.load(tmp_path / "runs" / "train")
    assert [read_state(sweep.place(cell)).state for cell in sweep.cells] == ["done", "done"]
    assert sweep.factors == {"seed": ["0", "1"]}
    assert processes(tmp_path) == []
