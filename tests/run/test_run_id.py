import os
import subprocess
import sys

import pytest
from torch.distributed import TCPStore

from gald.run.run_id import agree_on_run_id, agreed_in_torchrun

VARIABLES = ("GALD_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_NTASKS", "SLURM_STEP_ID")
PROGRAM = """
import os, sys, time
from pathlib import Path
from gald.run.run_id import agree_on_run_id
time.sleep(1.1 * int(os.environ["RANK"]))
agree_on_run_id()
Path(sys.argv[1], os.environ["RANK"]).write_text(os.environ["GALD_RUN_ID"])
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.slow
def test_processes_of_torchrun_share_one_run_folder(tmp_path):
    """The processes start more than a second apart, so their start times differ."""
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*torchrun, str(script), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=200, capture_output=True, env=environment)
    first, second = ((tmp_path / rank).read_text() for rank in "01")
    assert first == second and first


def test_processes_of_torchrun_agree_anew_after_a_restart(monkeypatch):
    """The store outlives the processes: none may read the id of those before."""
    store = TCPStore("localhost", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    for restart in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
        told = [agreed_in_torchrun("id", f"{restart}{rank}") for rank in range(2)]
        assert told == [f"{restart}0"] * 2


def test_tasks_of_a_slurm_step_share_one_run_folder(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_STEP_ID", "2")
    agree_on_run_id()
    assert os.environ["GALD_RUN_ID"] == "slurm_41_2"


def test_one_process_sets_no_run_id_and_a_given_one_stays(monkeypatch):
    agree_on_run_id()
    assert "GALD_RUN_ID" not in os.environ
    monkeypatch.setenv("GALD_RUN_ID", "mine")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    agree_on_run_id()
    assert os.environ["GALD_RUN_ID"] == "mine"
