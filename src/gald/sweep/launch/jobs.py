"""Cells of a sweep, built from the configs that Hydra composed."""

import math
import re
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from gald.options.check import check_config
from gald.options.roots import Train
from gald.run.new_folders import no_empty_folder
from gald.run.results import is_finished
from gald.sweep.launch.cell_process import read_json
from gald.sweep.manifest import NAME, Cell, Manifest, cell_hash, edit, split_overrides

SCORE = "val/miou"  # the value that a cell returns to its sweeper


@dataclass(frozen=True)
class Job:
    """A cell with everything that is needed to run it.

    Args:
        key: hash of the cell.
        config: config without Hydra's part; its folder is not set yet.
        overrides: its Hydra overrides.
        label: readable text that distinguishes it from other cells.
    """

    key: str
    config: DictConfig
    overrides: list[str]
    label: str

    @property
    def folder(self) -> str:
        """Name of its run folder: readable and unique."""
        return re.sub(r"[^\w.+-]+", "-", self.label).strip("-")[:80] + f"_{self.key[:6]}"


def make_job(composed: DictConfig, typed: Iterable[str]) -> Job:
    """Make a cell from the config that Hydra composed for it.

    Args:
        composed: the whole config, Hydra's part included.
        typed: arguments of the sweep as they were typed; keys with one value are left out of the
            label.

    Raises:
        ValueError: a value does not fit its option.
    """
    config = composed.copy()
    overrides = [str(override) for override in composed.hydra.overrides.task]
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        config.pop("hydra", None)
    check_config(config, Train)
    typed_overrides = OverridesParser.create().parse_overrides(
        [text for text in typed if "=" in text]
    )
    constant = {one.key_or_group for one in typed_overrides if not one.is_sweep_override()}
    swept = {k: v for k, v in split_overrides(overrides).items() if k not in constant}
    label = "_".join(f"{re.split('[./]', key)[-1]}-{value}" for key, value in swept.items())
    return Job(cell_hash(config), config, overrides, label or "cell")


def open_sweep(folder: Path, name: str) -> None:
    """Create the manifest of a sweep if it is missing, with the command of this process."""
    if not (folder / NAME).exists():
        Manifest(folder, name, command_line()).save()


@contextmanager
def forgotten_if_empty(folder: Path) -> Generator[None]:
    """Remove the folder of a sweep if an error ends it before it has a cell."""
    try:
        yield
    except Exception:
        if (folder / NAME).is_file() and not Manifest.load(folder).cells:
            for name in (NAME, f"{NAME}.lock", "launcher.lock", "multirun.yaml"):
                (folder / name).unlink(missing_ok=True)
        with no_empty_folder(folder):
            raise


def register(folder: Path, jobs: Sequence[Job]) -> Manifest:
    """Add cells to the manifest of their sweep.

    Raises:
        ValueError: the folder holds a sweep over other keys.
    """
    with edit(folder) as manifest:
        known = {key for cell in manifest.cells.values() for key in split_overrides(cell.overrides)}
        new = {key for job in jobs for key in split_overrides(job.overrides)}
        if known and known != new:
            raise ValueError(
                f"{folder} holds a sweep over {', '.join(sorted(known))}, but this one is over "
                f"{', '.join(sorted(new))}; choose a new folder with name=NAME"
            )
        for job in jobs:
            manifest.cells.setdefault(job.key, Cell(job.overrides, job.folder))
    return manifest


def command_line() -> list[str]:
    """Return the command line of this process."""
    return ["gald", "train", *sys.argv[1:]]


def recover(folder: Path) -> None:
    """Store the command of this process, and correct states that a killed launcher has left."""
    with edit(folder) as manifest:
        manifest.command = command_line()
        for cell in manifest.cells.values():
            finished = is_finished(folder / cell.folder)
            if cell.state == "running":
                cell.state, cell.reason = "pending", "its launcher ended"
            if cell.state == "pending" and finished:
                cell.state, cell.reason = "done", None
            elif cell.state == "done" and not finished:
                cell.state, cell.reason = "pending", "its results were deleted"


def placed(job: Job, folder: Path, cell: Cell) -> DictConfig:
    """Return the config of a job with its cell's folder as `output_dir`."""
    config = job.config.copy()
    config.output_dir = str((folder / cell.folder).absolute())
    config.ckpt_path = None
    OmegaConf.resolve(config)
    return config


def score(folder: Path, cell: Cell) -> float:
    """Return val/miou of a cell; nan unless it is done."""
    results = read_json(folder / cell.folder / "results.json") if cell.state == "done" else {}
    value = results.get(SCORE)
    return math.nan if value is None else float(value)


def smaller_batch(config: DictConfig, now: int | None, processes: int) -> int | None:
    """Return half the micro-batch size, or the next smaller divisor of the batch per process.

    None if the micro-batch size is already 1.

    Args:
        config: config of the cell, for its global batch size.
        now: current micro-batch size of one process, if known.
        processes: number of processes that share the global batch.
    """
    per_process = config.data.global_batch_size // processes
    now = now or min(config.data.micro_batch_size or per_process, per_process)
    return next((size for size in range(now // 2, 0, -1) if per_process % size == 0), None)
