"""What a tracking service shall call a run: alone, or as a cell of a sweep."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from gald.sweep.manifest import NAME, Manifest, split_overrides


@dataclass(frozen=True)
class RunLabels:
    """Words by which runs are found, grouped and averaged.

    Args:
        name: short and readable.
        job_type: `cell` of a sweep, else `train`.
        group: the sweep, if there is one.
        factors: values of the sweep's factors, the seed included.
    """

    name: str
    job_type: str = "train"
    group: str | None = None
    factors: dict[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """The factors as one would type them; services take 64 letters at most."""
        return [f"{key}={value}"[:64] for key, value in self.factors.items()]

    @property
    def config(self) -> dict[str, object]:
        """Keys to group by: `factor`, and `arm`, which runs that differ in the seed share."""
        if not self.factors:
            return {}
        named = {factor_key(key): value for key, value in self.factors.items()}
        arm = " ".join(f"{k}={v}" for k, v in self.factors.items() if k != "seed")
        return {"arm": arm or "all", "factor": named}


def factor_key(key: str) -> str:
    """A factor's name without the signs by which services split names."""
    return re.sub(r"[./]", "_", key)


def run_labels(folder: Path) -> RunLabels:
    """The labels of the run in a folder, which need not exist yet."""
    if (folder.parent / NAME).is_file():
        manifest = Manifest.load(folder.parent)
        for cell in manifest.cells.values():
            if cell.folder == folder.name:
                # Of a sweep that goes on, an optimizer's, the first cell has no other to differ
                # from; what the command does not say word for word was drawn for this cell.
                typed = set(manifest.command)
                drawn = split_overrides([word for word in cell.overrides if word not in typed])
                chosen = {
                    key: value
                    for key, value in split_overrides(cell.overrides).items()
                    if key in manifest.factors or key in drawn
                }
                return RunLabels(folder.name, "cell", manifest.name, chosen)
    return RunLabels(f"{folder.parent.name}/{folder.name}")
