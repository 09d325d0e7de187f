"""Where a training begins: from a checkpoint, from the weights of another run, or afresh."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from gald.errors import is_of_the_system, to_sentence
from gald.run.checkpoint import check_training_state, read_checkpoint, whole_neighbour
from gald.run.fresh import clear, may_start_afresh
from gald.run.initial_weights import start_from
from gald.run.resume import check_resume, resume_command
from gald.task import SegmentationTask


def resume_point(cfg: DictConfig, folder: Path, began: bool) -> tuple[str | None, str | None]:
    """Return the checkpoint to resume from, if any, and a sentence if the training gets longer."""
    if cfg.ckpt_path is None:
        return None, None
    last = cfg.ckpt_path == "last"
    path = folder / "checkpoints" / "last.ckpt" if last else Path(cfg.ckpt_path)
    if last and not path.is_file() and began and may_start_afresh(folder, began):
        return None, None
    if not path.is_file():
        if last and (good := whole_neighbour(path)):
            raise FileNotFoundError(
                f"{folder} has no last.ckpt, but {good} is whole; resume with: "
                f"{resume_command(folder, good)}"
            )
        raise FileNotFoundError(
            f"no checkpoint at {path}; give output_dir=FOLDER of the run to resume, "
            "or ckpt_path=FILE"
        )
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        if good := whole_neighbour(path):
            command = resume_command(folder, good)
            raise ValueError(f"{error}, as in: {command}") from error
        raise
    if not checkpoint.resumable:
        raise ValueError(
            f"{path} holds a network but no training state to resume; start a new run from its "
            f"weights with init_from={path}"
        )
    check_training_state(checkpoint)
    now = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return str(path), check_resume(checkpoint.config, now, path)


def load_initial_weights(cfg: DictConfig, task: SegmentationTask) -> str | None:
    """Load the initial weights, if they are from another run; return a sentence about them."""
    if not isinstance(cfg.init_from_strict, bool):
        raise ValueError(
            f"init_from_strict is {cfg.init_from_strict!r}; set init_from_strict to true or false"
        )
    if cfg.init_from is None:
        return None
    network, names = task.provenance["config"]["model"], task.provenance["class_names"]
    checkpoint = read_checkpoint(cfg.init_from)
    return start_from(task.model, checkpoint, network, names, cfg.init_from_strict)


@rank_zero_only  # the other processes start after the first has created files in the folder
def refuse_to_overwrite(folder: Path, began: bool) -> None:
    """Raise a ValueError if a folder holds a run that would be overwritten."""
    if may_start_afresh(folder, began):
        return
    last = folder / "checkpoints" / "last.ckpt"
    good = "last" if last.is_file() else whole_neighbour(last)
    resume = f"add ckpt_path={good} to resume it, or " if good else ""
    raise ValueError(f"{folder} already holds a run; {resume}choose another output_dir")


def start_again(folder: Path) -> str:
    """Remove what a run left that ended before its first checkpoint; return a sentence about it."""
    if not getattr(rank_zero_only, "rank", 0):  # the other processes wait for the first
        clear(folder)
    return f"the run in {folder} ended before its first checkpoint; it starts from the beginning"


@contextmanager
def say_how_to_go_on(folder: Path) -> Generator[None]:
    """Add to an error of the disk how to continue the run once its cause is removed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not is_of_the_system(error):
            raise
        last = folder / "checkpoints" / "last.ckpt"
        kept = f"then resume with: {resume_command(folder)}"
        then = kept if last.is_file() else "then repeat the command"
        raise OSError(f"{to_sentence(error)}, {then}") from error
