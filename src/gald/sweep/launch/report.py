"""Final report of a sweep: failed cells with their reasons, and the exit code."""

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from typing_extensions import override

from gald.run.new_folders import remember
from gald.sweep.launch.jobs import open_sweep
from gald.sweep.manifest import NAME, Manifest


class SweepReport(Callback):
    """Hydra callback that prints the cells of a multirun without a result, and exits with code 1.

    It also creates the manifest, because jobs of other launchers than gald's do not know the
    command line.
    """

    @override
    def on_multirun_start(self, config: DictConfig, **more: object) -> None:
        if more.get("config_name") == "train":
            folder = Path(config.hydra.sweep.dir)
            remember(folder)
            with suppress(OSError):  # the launcher reports it
                open_sweep(folder, config.name)

    @override
    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        folder = Path(config.hydra.sweep.dir)
        if not (folder / NAME).is_file():
            return
        manifest = Manifest.load(folder)
        count = manifest.count()
        missing = [cell for cell in manifest.cells.values() if cell.state != "done"]
        write = partial(
            Console(markup=False, emoji=False, stderr=bool(missing)).print,
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        write(f"sweep {folder}: {count['done']} of {len(manifest.cells)} cells done")
        for cell in missing:
            write(f"  {cell.state}: {cell.folder}: {cell.reason or 'not started'}")
        if count["failed"]:
            write(f"see log.txt in each folder; to let failed cells run: gald sweep retry {folder}")
        if missing:
            sys.exit(1)
