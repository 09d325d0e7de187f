"""Cells of a sweep and their states: `manifest.json` in the sweep's folder."""

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from gald.options.ranges import Count, NotNegative, Text, Whole
from gald.run.atomic import atomic_file
from gald.run.shape import check_shape
from gald.run.text_file import read_json

NAME = "manifest.json"
State = Literal["pending", "running", "done", "failed"]
STATES: tuple[State, ...] = get_args(State)
VERSION = 1
# Keys that change neither weights nor scores: file locations, loggers, number of workers.
IRRELEVANT_KEYS = ("name", "output_dir", "ckpt_path", "logger", "hydra")
IRRELEVANT_DATA_KEYS = ("root", "num_workers", "cache", "cache_dir", "eval_batch_size")


@dataclass
class Cell:
    """One training run of a sweep.

    Args:
        overrides: its Hydra overrides, the seed included.
        folder: its run folder, relative to the sweep's folder.
        state: pending, running, done or failed.
        reason: why it failed, or why it is pending again; one sentence.
        attempts: number of starts.
        seconds: time of all attempts together.
        micro_batch_size: reduced micro-batch size after running out of memory.
    """

    overrides: list[str]
    folder: str
    state: str = "pending"
    reason: str | None = None
    attempts: int = 0
    seconds: float | None = None
    micro_batch_size: int | None = None


_AGAIN = "delete it and repeat the sweep's command, which keeps finished cells"
_SHAPE = {"name": str, "command": list[str], "cells": Mapping[str, Mapping[str, Any]]}
_CELL = {
    "overrides": list[str],
    "folder": Text,
    "state": State,
    "reason": str | None,
    "attempts": Whole,
    "seconds": NotNegative | None,
    "micro_batch_size": Count | None,
}


@dataclass
class Manifest:
    """Cells of a sweep by hash, in the order of declaration.

    Args:
        path: folder of the sweep.
        name: name of the sweep.
        command: the command line that declared it.
        cells: cell by `cell_hash`.
    """

    path: Path
    name: str
    command: list[str]
    cells: dict[str, Cell] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read the manifest of a sweep's folder.

        Raises:
            FileNotFoundError: the folder has no manifest.
            ValueError: the manifest is damaged, or from another version of gald.
        """
        path = Path(folder) / NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no sweep (no {NAME}); name the folder that gald train -m printed"
            )
        content = read_json(path, _AGAIN, "cannot be read as a sweep")
        check_shape(path, content, {"version": int | str}, _AGAIN)
        if content["version"] != VERSION:
            raise ValueError(
                f"{path} has version {content['version']}, but this gald reads version {VERSION}; "
                "use the gald version that wrote it"
            )
        check_shape(path, content, _SHAPE, _AGAIN)
        known = [one.name for one in fields(Cell)]
        cells = {}
        for key, cell in content["cells"].items():
            check_shape(path, cell, _CELL, _AGAIN, f"cells.{key}")
            _check_inside(path, key, cell["folder"])
            cells[key] = Cell(**{name: cell[name] for name in known})
        return cls(Path(folder), content["name"], content["command"], cells)

    @property
    def factors(self) -> dict[str, list[str]]:
        """Keys with more than one value in the cells, values in order of appearance."""
        values: dict[str, dict[str, None]] = {}
        for cell in self.cells.values():
            for key, value in split_overrides(cell.overrides).items():
                values.setdefault(key, {})[value] = None
        return {key: list(seen) for key, seen in values.items() if len(seen) > 1}

    def save(self) -> None:
        """Write the file atomically, so that readers never see a part of it."""
        content: dict[str, Any] = {"version": VERSION, "name": self.name, "command": self.command}
        content["factors"] = self.factors
        content["cells"] = {key: asdict(cell) for key, cell in self.cells.items()}
        with atomic_file(self.path / NAME) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def count(self) -> dict[str, int]:
        """Return the number of cells in each state."""
        states = [cell.state for cell in self.cells.values()]
        return {state: states.count(state) for state in STATES}


def _check_inside(path: Path, key: str, folder: str) -> None:
    """Refuse a cell that is not one folder inside its sweep, where runs are read and deleted."""
    if Path(folder).name != folder or folder in (".", "..") or "\0" in folder:
        raise ValueError(
            f"{path} has {folder!r} as the folder of cell {key}, which is not a folder inside the "
            f"sweep; {_AGAIN}"
        )


@contextmanager
def edit(folder: str | Path) -> Generator[Manifest]:
    """Lock and load the manifest of a sweep for editing, and save it afterwards."""
    with FileLock(Path(folder) / f"{NAME}.lock", timeout=60):
        manifest = Manifest.load(folder)
        yield manifest
        manifest.save()


def split_overrides(overrides: list[str]) -> dict[str, str]:
    """Return the value of each overridden key, without Hydra's own keys."""
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key.partition(".")[0] != "hydra"}


def cell_hash(config: DictConfig) -> str:
    """Hash the parts of a config that decide the outcome of a training run, as 12 hex digits.

    Two runs have the same hash if they differ only in file locations, loggers or the number of
    loading processes. Every seed has its own hash.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    config.output_dir = config.name = "sweep"  # other paths are built from them
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    for key in IRRELEVANT_KEYS:
        content.pop(key, None)
    for key in IRRELEVANT_DATA_KEYS:
        content["data"].pop(key, None)
    if content.get("init_from_strict"):  # the default, unknown to sweeps of earlier versions
        del content["init_from_strict"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
