"""One name for a run of many processes, agreed on before any of them makes a folder."""

import datetime
import os

VARIABLE = "GALD_RUN_ID"  # conf/train.yaml names the run's folder by it


def agree_on_run_id() -> None:
    """Set GALD_RUN_ID alike in all processes that torchrun or srun started, unless it is set.

    Each would otherwise name the run's folder by its own clock.
    """
    if VARIABLE in os.environ:
        return
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        os.environ[VARIABLE] = _agreed()
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_ID" in os.environ:
        os.environ[VARIABLE] = f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}"


def _agreed() -> str:
    """The start time that the first process puts into torchrun's own store."""
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False)
    if os.environ["RANK"] == "0":
        store.set(VARIABLE, f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}")
    return store.get(VARIABLE).decode()
