"""Run folders of a run that ended before its first checkpoint."""

import shutil
from pathlib import Path

HEARTBEAT = "heartbeat.json"
LOCK = "run.lock"


def has_begun(folder: Path) -> bool:
    """Return whether a run began in a folder."""
    return (folder / LOCK).exists()


def may_start_afresh(folder: Path, began: bool) -> bool:
    """Return whether a folder holds nothing that a new start would lose.

    The first validation saves `best.ckpt` just before `last.ckpt`; alone and of the first epoch it
    is worth no more than a new start, which leads to the same file.

    Args:
        folder: a run folder without leftovers of killed processes.
        began: whether a run began there; if not, every file is foreign.
    """
    if (folder / "results.json").exists() or (folder / "checkpoints" / "last.ckpt").exists():
        return False
    files = list((folder / "checkpoints").glob("*"))
    return not files or (began and all(map(_is_of_first_epoch, files)))


def _is_of_first_epoch(path: Path) -> bool:
    from gald.run.weight_file import read_weight_file  # imports torch, which takes seconds

    try:
        content = read_weight_file(path)
        saves_last = "last" in content["gald"]["config"]["callbacks"]
        return saves_last and content["epoch"] == 0
    except FileNotFoundError:
        return not path.exists()  # the first process of the run has removed it
    except (ValueError, KeyError, TypeError):
        return False


def clear(folder: Path) -> None:
    """Remove the files of an attempt that cannot be resumed; logs of the output stay."""
    for name in ("checkpoints", "wandb", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.csv", HEARTBEAT):
        (folder / name).unlink(missing_ok=True)
