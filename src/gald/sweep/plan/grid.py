"""Cells that `gald train -m` would run, composed without running them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from gald.config import CONF_DIR, hints
from gald.sweep.cells import NAME, Cell, Sweep, split_overrides
from gald.sweep.grid import check_grid, check_levels, grid
from gald.sweep.state import read_state
from gald.sweep.table.arms import SEED


@dataclass(frozen=True)
class Entry:
    """One cell of a plan.

    Args:
        cell: what the launcher would run.
        config: its config; its folder is not set.
        values: values of the factors, the seed included.
        done: whether the sweep's folder already holds its result.
    """

    cell: Cell
    config: DictConfig
    values: Mapping[str, str]
    done: bool

    @property
    def arm(self) -> dict[str, str]:
        """Values of the factors without the seed."""
        return {key: value for key, value in self.values.items() if key != SEED}


def declared_cells(
    words: Sequence[str], folder: Path | None = None
) -> tuple[DictConfig, list[list[str]]]:
    """List the cells that the overrides of a multirun declare.

    One cell with each value is composed, so that a wrong value is found.

    Args:
        words: overrides as `gald train -m` takes them, with lists, ranges and globs; those in
            `hydra.sweeper.params` of an experiment are added.
        folder: folder of the sweep; None is that of the config.

    Returns:
        the multirun's own config, and the overrides of its cells in Hydra's order, duplicates
        included.

    Raises:
        ValueError: the sweeper chooses its cells while it runs.
    """
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), hints("train", words):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", list(words), run_mode=RunMode.MULTIRUN)
        cells = grid(master, OverridesParser.create(config_loader=loader))
        if cells is None:
            target = str(master.hydra.sweeper._target_).rpartition(".")[2]
            raise ValueError(
                f"{target} chooses its cells while it runs and cannot be planned; remove "
                "hydra/sweeper=... to plan a grid"
            )
        check_levels(cells, lambda overrides: loader.load_sweep_config(master, overrides))
        check_grid(master, loader, folder)
        return master, cells


def plan_entries(folder: Path, cells: Sequence[Cell], words: Sequence[str]) -> list[Entry]:
    """Compose the cells of a plan, and mark those that are done in the sweep's folder.

    Args:
        folder: folder of the sweep, which need not exist.
        cells: its cells, without duplicates.
        words: overrides of the multirun.
    """
    factors = Sweep(folder, "", [], list(cells)).factors
    known = Sweep.load(folder).cells if (folder / NAME).is_file() else []
    places = {frozenset(split_overrides(cell.overrides).items()): cell for cell in known}
    entries = []
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", list(words), run_mode=RunMode.MULTIRUN)
        for cell in cells:
            config = loader.load_sweep_config(master, list(cell.overrides))
            OmegaConf.set_readonly(config, False)
            with open_dict(config):
                config.pop("hydra", None)
            overrides = split_overrides(cell.overrides)
            values = {factor: overrides.get(factor, "default") for factor in factors}
            place = places.get(frozenset(overrides.items()))
            done = place is not None and read_state(folder / place.folder).state == "done"
            entries.append(Entry(cell, config, values, done))
    return entries
