"""The end of a sweep: what failed and why, and an exit code that says so."""

import sys
from functools import partial
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from typing_extensions import override

from gald.sweep.launch.jobs import open_sweep
from gald.sweep.manifest import NAME, Manifest


class SweepReport(Callback):
    """Names the cells of a finished multirun that have no result, and ends it with exit code 1.

    It also begins the manifest, because the jobs of other launchers than ours know no command line.
    """

    @override
    def on_multirun_start(self, config: DictConfig, **more: object) -> None:
        if more.get("config_name") == "train":
            open_sweep(Path(config.hydra.sweep.dir), config.name)

    @override
    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        folder = Path(config.hydra.sweep.dir)
        if not (folder / NAME).is_file():
            return
        manifest = Manifest.load(folder)
        count = manifest.count()
        missing = [cell for cell in manifest.cells.values() if cell.state != "done"]
        say = partial(
            Console(stderr=bool(missing)).print, soft_wrap=True, markup=False, highlight=False
        )
        say(f"sweep {folder}: {count['done']} of {len(manifest.cells)} cells done")
        for cell in missing:
            say(f"  {cell.state}: {cell.folder}: {cell.reason or 'not begun'}")
        if count["failed"]:
            say(f"each folder's log.txt tells more; gald sweep retry {folder}")
        if missing:
            sys.exit(1)
