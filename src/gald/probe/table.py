"""Table at the end of a probe."""

from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from typing_extensions import override

from gald.sweep.cells import NAME, Sweep


class ProbeTable(Callback):
    """Hydra callback that prints the table of a probe once all its cells are done."""

    @override
    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        folder = Path(config.hydra.sweep.dir)
        if not (folder / NAME).is_file():
            return
        # Imported here, because Hydra imports this module at every start.
        from gald.sweep.table.table import print_table

        sweep = Sweep.load(folder)
        has_test = (sweep.place(sweep.cells[0]) / "images_test.npz").is_file()
        try:
            print_table(folder, split="test" if has_test else "val")
        except ValueError as error:  # as a primary contrast without its arms
            print(f"no table ({error}); see gald table {folder}")
