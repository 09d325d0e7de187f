"""Start and end of a multirun: its cells are declared, and those without a result are listed."""

import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from typing_extensions import override

from gald.options.check import check_part
from gald.options.roots import SWEPT
from gald.run.new_folders import no_empty_folder, remember
from gald.sweep.cells import NAME, Cell, Sweep, declare
from gald.sweep.grid import check_grid, check_levels, command_line, grid, primary_of
from gald.sweep.state import read_state


class SweepReport(Callback):
    """Hydra callback that declares the cells of a multirun, and reports those without a result.

    All cells of a grid are declared before the first starts, so that their order does not depend
    on the launcher. If a cell of the command has no result in the end, the exit code is 1.
    """

    def __init__(self) -> None:
        self.cells: list[Cell] = []  # of the command, which may be a part of the sweep

    @override
    def on_multirun_start(self, config: DictConfig, **more: object) -> None:
        verb = str(more.get("config_name"))
        if verb not in SWEPT:
            return
        folder = Path(config.hydra.sweep.dir)
        remember(folder)
        loader = GlobalHydra.instance().config_loader()
        with suppress(Exception):  # Hydra would only warn of it, and the sweeper raises it again
            launcher = str(config.hydra.launcher._target_)
            if launcher.endswith("GaldLauncher"):
                check_part(config.hydra.launcher, "hydra.launcher")
            if launcher.endswith("submitit_launcher.LocalLauncher"):
                # Imported here, because Hydra imports this module at every start.
                from gald.sweep.launch.devices import tell_jobs

                tell_jobs()
            cells = grid(config, OverridesParser.create(config_loader=loader)) or []
            compose = partial(loader.load_sweep_config, config)
            check_levels(cells, compose, SWEPT[verb])
            check_grid(config, loader)
            words = command_line(verb)
            self.cells = declare(folder, str(config.name), words, cells, primary_of(config.hydra))

    @override
    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        folder = Path(config.hydra.sweep.dir)
        if (folder / NAME).is_file() and report(Sweep.load(folder), self.cells):
            sys.exit(1)


@contextmanager
def forgotten_if_empty(folder: Path) -> Generator[None]:
    """Remove the folder of a sweep if an error ends it before it has a cell."""
    try:
        yield
    except Exception:
        if not (folder / NAME).is_file() or not Sweep.load(folder).cells:
            for name in (NAME, f"{NAME}.lock", "multirun.yaml"):
                (folder / name).unlink(missing_ok=True)
        with no_empty_folder(folder):
            raise


def report(sweep: Sweep, cells: Iterable[Cell] = ()) -> int:
    """Print what became of cells of a sweep.

    Args:
        sweep: the sweep.
        cells: the cells; none means all of the sweep. Others are only counted.

    Returns:
        how many of the cells have no result.
    """
    states = {cell: read_state(sweep.place(cell)) for cell in sweep.cells}
    missing = {cell: state for cell, state in states.items() if state.state != "done"}
    own = set(cells) or set(states)
    write = partial(
        Console(markup=False, emoji=False, stderr=not own.isdisjoint(missing)).print,
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    done = len(states) - len(missing)
    write(f"sweep {sweep.path}: {done} of {len(states)} cells done")
    listed = {cell: state for cell, state in missing.items() if cell in own}
    for cell, state in listed.items():
        write(f"  {state.state}: {cell.folder}: {state.reason or state.owner or 'not started'}")
    if others := len(missing) - len(listed):
        write(
            f"not done, but not named by this command: {others}; to list them: "
            f"gald sweep status {sweep.path}"
        )
    if any(state.state == "failed" for state in listed.values()):
        log = "" if sweep.of_probe else "see log.txt in each folder; "
        write(f"{log}to let failed cells run: gald sweep retry {sweep.path}")
    return len(listed)
