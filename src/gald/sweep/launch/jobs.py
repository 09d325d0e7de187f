"""From Hydra's composed configs to the cells of a sweep."""

import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from gald.sweep.launch.cell_process import read_json
from gald.sweep.manifest import NAME, Cell, Manifest, cell_hash, edit, split_overrides

SCORE = "val/miou"  # what a cell tells its sweeper


@dataclass(frozen=True)
class Job:
    """A cell with all that running it takes.

    Args:
        key: its hash.
        config: resolved but for its folder, without Hydra's part.
        overrides: what the command line says of it.
        label: what tells it from the other cells, for people.
    """

    key: str
    config: DictConfig
    overrides: list[str]
    label: str

    @property
    def folder(self) -> str:
        """Name of its run folder: readable, and never that of another cell."""
        return re.sub(r"[^\w.+-]+", "-", self.label).strip("-")[:80] + f"_{self.key[:6]}"


def make_job(composed: DictConfig, typed: Iterable[str]) -> Job:
    """A cell from what Hydra composed for it.

    Args:
        composed: the whole config, Hydra's part included.
        typed: the sweep's arguments as they were typed; keys with one value name no cell.
    """
    config = composed.copy()
    overrides = [str(override) for override in composed.hydra.overrides.task]
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        config.pop("hydra", None)
    typed_overrides = OverridesParser.create().parse_overrides(
        [text for text in typed if "=" in text]
    )
    constant = {one.key_or_group for one in typed_overrides if not one.is_sweep_override()}
    swept = {k: v for k, v in split_overrides(overrides).items() if k not in constant}
    label = "_".join(f"{re.split('[./]', key)[-1]}-{value}" for key, value in swept.items())
    return Job(cell_hash(config), config, overrides, label or "cell")


def open_sweep(folder: Path, name: str) -> None:
    """Begin the manifest of a sweep that has none, as of the command that this process runs."""
    if not (folder / NAME).exists():
        Manifest(folder, name, command_line()).save()


def register(folder: Path, jobs: Sequence[Job]) -> Manifest:
    """Enter cells into the manifest of their sweep.

    Raises:
        ValueError: the folder holds a sweep over other keys.
    """
    with edit(folder) as manifest:
        known = {key for cell in manifest.cells.values() for key in split_overrides(cell.overrides)}
        new = {key for job in jobs for key in split_overrides(job.overrides)}
        if known and known != new:
            raise ValueError(
                f"{folder} holds a sweep over {', '.join(sorted(known))}, but this one is over "
                f"{', '.join(sorted(new))}; give it a folder of its own with name=NAME"
            )
        for job in jobs:
            manifest.cells.setdefault(job.key, Cell(job.overrides, job.folder))
    return manifest


def command_line() -> list[str]:
    """The command that this process was started by."""
    return ["gald", "train", *sys.argv[1:]]


def recover(folder: Path) -> None:
    """Note by whom the sweep is run now, and correct what a launcher that was killed has left."""
    with edit(folder) as manifest:
        manifest.command = command_line()
        for cell in manifest.cells.values():
            finished = (folder / cell.folder / "results.json").is_file()
            if cell.state == "running":
                cell.state, cell.reason = "pending", "its launcher ended"
            if cell.state == "pending" and finished:
                cell.state, cell.reason = "done", None
            elif cell.state == "done" and not finished:
                cell.state, cell.reason = "pending", "its results were deleted"


def placed(job: Job, folder: Path, cell: Cell) -> DictConfig:
    """The config of a job that runs in its cell's folder."""
    config = job.config.copy()
    config.output_dir = str((folder / cell.folder).absolute())
    config.ckpt_path = None
    OmegaConf.resolve(config)
    return config


def score(folder: Path, cell: Cell) -> float:
    """The cell's val/miou; not a number unless it is done."""
    results = read_json(folder / cell.folder / "results.json") if cell.state == "done" else {}
    value = results.get(SCORE)
    return math.nan if value is None else float(value)


def smaller_batch(config: DictConfig, now: int | None, processes: int) -> int | None:
    """Half as many images at once, or the next divisor of the share; None if it was one.

    Args:
        config: of the cell, for its global batch.
        now: images that one process took at once, if known.
        processes: processes that share the global batch, where it is not.
    """
    share = config.data.global_batch_size // processes
    now = now or min(config.data.micro_batch_size or share, share)
    return next((size for size in range(now // 2, 0, -1) if share % size == 0), None)
