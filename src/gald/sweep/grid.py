"""Cells of a multirun, as its command line declares them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from gald.options.check import check_config
from gald.options.roots import Train
from gald.sweep.cells import NAME, Sweep, split_overrides
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
    return _split(parser, [*_params(config), *map(str, config.hydra.overrides.task)])


def _declared_by_params(config: DictConfig, parser: OverridesParser) -> list[list[str]]:
    """Return the cells of `hydra.sweeper.params`, as if the command named none of its keys."""
    params, task = _params(config), map(str, config.hydra.overrides.task)
    keys = split_overrides(params).keys()
    rest = [word for word in task if keys.isdisjoint(split_overrides([word]))]
    return _split(parser, [*params, *rest])


def _params(config: DictConfig) -> list[str]:
    return [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]


def _split(parser: OverridesParser, words: list[str]) -> list[list[str]]:
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


def check_grid(config: DictConfig, loader: ConfigLoader, folder: Path | None = None) -> None:
    """Check the primary contrast of a multirun against all cells of its sweep.

    Those are the cells that its folder has, those of the command, and those that
    `hydra.sweeper.params` declares. So a command may run a part of a sweep, or add an arm to it.

    Args:
        config: the multirun's own config, Hydra's section included.
        loader: loads the config of a cell.
        folder: folder of the sweep; None is that of the config.

    Raises:
        ValueError: a word of it names nothing of the sweep.
    """
    primary = primary_of(config.hydra)
    parser = OverridesParser.create(config_loader=loader)
    cells = grid(config, parser)
    if primary is None or not cells:
        return
    # By name, as commands are: tables import launchers, which import this file.
    check_primary = resolve_name("gald.sweep.table.primary:check_primary")
    folder = folder or Path(config.hydra.sweep.dir)
    before = [c.overrides for c in Sweep.load(folder).cells] if (folder / NAME).is_file() else []
    metrics = loader.load_sweep_config(config, cells[0]).metrics
    check_primary(primary, [*before, *cells], metrics, _declared_by_params(config, parser))


def primary_of(hydra: DictConfig) -> str | None:
    """Return the primary contrast of Hydra's section of a multirun's config, or None."""
    given = hydra.sweeper.get("primary")
    return " ".join(str(given).split()) if given else None


def each_level_once(cells: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Return a few cells in which every value of every key occurs at least once."""
    seen: set[tuple[str, str]] = set()
    for overrides in cells:
        levels = set(split_overrides(overrides).items())
        if not levels <= seen:
            seen |= levels
            yield overrides
