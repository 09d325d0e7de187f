"""Labels of a run for tracking services: of a single run, or of a cell of a sweep."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from gald.config import quote_paths
from gald.sweep.cells import NAME, Sweep, split_overrides


@dataclass(frozen=True)
class RunLabels:
    """Name, group and factors by which a tracking service finds, groups and averages runs.

    Args:
        name: short, readable name.
        job_type: `cell` for a cell of a sweep, else `train`.
        group: name of the sweep, if there is one.
        factors: values of the sweep's factors, the seed included.
    """

    name: str
    job_type: str = "train"
    group: str | None = None
    factors: dict[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """Factors as overrides, cut to the 64 characters that services accept."""
        return [f"{key}={value}"[:64] for key, value in self.factors.items()]

    @property
    def config(self) -> dict[str, object]:
        """Keys to group by: `factor`, and `arm`, which is the same for all seeds."""
        if not self.factors:
            return {}
        named = {factor_key(key): value for key, value in self.factors.items()}
        arm = " ".join(f"{k}={v}" for k, v in self.factors.items() if k != "seed")
        return {"arm": arm or "all", "factor": named}


def factor_key(key: str) -> str:
    """Replace the characters at which services split names by underscores."""
    return re.sub(r"[./]", "_", key)


def run_labels(folder: Path) -> RunLabels:
    """Return the labels of the run in a folder, which need not exist yet."""
    if (folder.parent / NAME).is_file():
        sweep = Sweep.load(folder.parent)
        for cell in sweep.cells:
            if cell.folder == folder.name:
                # A sweeper such as Optuna adds cells one by one, so the first cell has no other
                # to differ from. Overrides that are not in the command were drawn for this cell.
                typed = split_overrides(_as_in_a_cell(sweep.command)).items()
                factors = sweep.factors
                chosen = {
                    key: value
                    for key, value in split_overrides(cell.overrides).items()
                    if key in factors or (key, value) not in typed
                }
                return RunLabels(folder.name, "cell", sweep.name, chosen)
    return RunLabels(f"{folder.parent.name}/{folder.name}")


def _as_in_a_cell(words: Iterable[str]) -> Iterator[str]:
    """Write the overrides with one value as Hydra passes them on: `report=False` for `false`."""
    parser = OverridesParser.create()
    for word in quote_paths(list(words)):
        with suppress(HydraException):  # a verb or an option
            override = parser.parse_override(word)
            if not override.is_sweep_override():
                yield f"{override.get_key_element()}={override.get_value_element_as_str()}"
