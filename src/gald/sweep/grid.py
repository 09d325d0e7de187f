"""Cells of a multirun, as its command line declares them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from gald.options.check import check_config
from gald.options.roots import Train
from gald.sweep.cells import split_overrides
from gald.sweep.compose import fill

GRID_SWEEPERS = ("BasicSweeper", "GaldSweeper")


def command_line(verb: str) -> list[str]:
    """Return the command line of this process, of a verb that trains."""
    return ["gald", verb, *sys.argv[1:]]


def grid(config: DictConfig, parser: OverridesParser) -> list[list[str]] | None:
    """Return the cells of a multirun in Hydra's order, duplicates included.

    None if its sweeper chooses cells while it runs.

    Args:
        config: the multirun's own config, Hydra's section included.
        parser: parser of the overrides, with a config loader, which globs need.
    """
    sweeper = config.hydra.sweeper
    if not str(sweeper._target_).endswith(GRID_SWEEPERS):
        return None
    words = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    words += [str(word) for word in config.hydra.overrides.task]
    (cells,) = BasicSweeper.split_arguments(parser.parse_overrides(words), None)
    return [list(cell) for cell in cells]


def check_levels(
    cells: Iterable[Sequence[str]],
    compose: Callable[[list[str]], DictConfig],
    roots: Any = Train,
) -> None:
    """Check a few cells in which every value occurs, before any cell is declared.

    Args:
        cells: Hydra overrides of each cell.
        compose: composes the config of a cell, Hydra's section included.
        roots: root keys of the config, see `gald.options.roots`.

    Raises:
        ValueError: a value does not fit its option.
    """
    for overrides in each_level_once(cells):
        config = compose(list(overrides)).copy()
        OmegaConf.set_readonly(config, False)
        with open_dict(config):
            config.pop("hydra", None)
        fill(config)
        check_config(config, roots)


def each_level_once(cells: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Return a few cells in which every value of every key occurs at least once."""
    seen: set[tuple[str, str]] = set()
    for overrides in cells:
        levels = set(split_overrides(overrides).items())
        if not levels <= seen:
            seen |= levels
            yield overrides
