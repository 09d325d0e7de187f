"""Common run id for all processes of a run, set before any of them creates a folder."""

import datetime
import os
import re

VARIABLE = "GALD_RUN_ID"  # conf/train.yaml uses it as the name of the run folder


def agree_on_run_id() -> None:
    """Set GALD_RUN_ID to one value in all processes of torchrun or srun, unless it is set.

    Otherwise each process would create its own run folder, named by the time of its start. An id
    that the user has given to torchrun, and the number of a SLURM job, stay the same when the job
    starts again, so that `ckpt_path=auto` finds the checkpoint.
    """
    if VARIABLE in os.environ:
        return
    if named := _torchrun_id():
        os.environ[VARIABLE] = named
    elif in_torchrun():
        now = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
        os.environ[VARIABLE] = agreed_in_torchrun(VARIABLE, now)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_ID" in os.environ:
        os.environ[VARIABLE] = f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}"


def _torchrun_id() -> str | None:
    """Return the id that torchrun was given; None if it drew one, as with --standalone."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    is_drawn = re.fullmatch(r"none|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name) is not None
    return None if is_drawn else re.sub(r"[^\w.+-]+", "-", name)


def in_torchrun() -> bool:
    """Return whether torchrun has started this process, and has a store for its processes."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def agreed_in_torchrun(name: str, value: str) -> str:
    """Return the value of the process of torchrun that asks first; the same to all that ask.

    torchrun's store outlives a restart of the processes, after which they agree anew.

    Args:
        name: what they agree on.
        value: what this process proposes.
    """
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False)
    key = f"gald/{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return store.compare_set(key, "", value).decode()
