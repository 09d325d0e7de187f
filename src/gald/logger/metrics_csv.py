"""Logger that writes metrics to a CSV file and continues the file of a resumed run."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from gald.options.ranges import Count
from gald.run.atomic import atomic_file


class MetricsCSV(Logger):
    """Logger that writes every logged number to one CSV file, one row per step.

    Lightning's own CSV logger deletes the file when a run is resumed. This one continues the file,
    and drops only the rows that the resumed run will repeat. Each write replaces the file
    atomically, so it is complete at any time.

    Args:
        path: the CSV file.
        save_every: number of rows between two writes; validations also cause a write.
    """

    def __init__(self, path: str, save_every: Count = 50) -> None:
        super().__init__()
        self.path = Path(path)
        self.save_every = save_every
        self.rows: list[dict[str, Any]] | None = None
        self.unsaved = 0

    @property
    @override
    def name(self) -> str:
        return "csv"

    @property
    @override
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any) -> None:
        """Do nothing: config.yaml in the run folder contains the parameters."""

    @rank_zero_only
    @override
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = 0 if step is None else step
        if self.rows is None:
            self.rows = [row for row in self._read() if int(row["step"]) < step]
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
            self.unsaved += 1
        self.rows[-1].update(metrics)
        if self.unsaved >= self.save_every or any(k.startswith("val/") for k in metrics):
            self.save()

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [{**row, "step": int(row["step"])} for row in csv.DictReader(file)]

    @rank_zero_only
    @override
    def save(self) -> None:
        if not self.rows:
            return
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with atomic_file(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self.unsaved = 0

    @rank_zero_only
    @override
    def finalize(self, status: str) -> None:
        self.save()
