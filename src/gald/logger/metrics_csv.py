"""Logger that writes metrics to a CSV file and continues the file of a resumed run."""

import csv
import io
import shutil
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from typing_extensions import override

from gald.errors import to_sentence
from gald.options.ranges import Count
from gald.run.atomic import atomic_file


class MetricsCSV(Logger):
    """Logger that writes every logged number to one CSV file, one row per step.

    Lightning's own CSV logger deletes the file when a run is resumed. This one continues the file,
    and drops only the rows that the resumed run will repeat. Each write replaces the file
    atomically, so it is complete at any time. A write that fails is repeated with the next rows.

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
        self.warned = False

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
        """Return the rows on the disk; what is not a row is dropped, and the file kept aside."""
        if not self.path.is_file():
            return []
        rows, damage = [], None
        try:
            text = self.path.read_text(encoding="utf-8")
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            if "step" not in (reader.fieldnames or ()):
                raise KeyError("step")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"line {reader.line_num} is not complete")
                rows.append({**row, "step": int(row["step"])})
            if not text.endswith("\n"):
                rows.pop()  # a number in it may be cut
                raise ValueError("its last line is not complete")
        except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
            damage = "it has no column step" if isinstance(error, KeyError) else str(error)
        if damage is not None:
            kept = self.path.with_name(f"{self.path.name}.damaged")
            with suppress(OSError):
                shutil.copyfile(self.path, kept)
            rank_zero_warn(
                f"{self.path} is damaged ({damage}); its {len(rows)} whole rows are kept, and the "
                f"damaged file as {kept.name}"
            )
        return rows

    @rank_zero_only
    @override
    def save(self) -> None:
        if not self.rows:
            return
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        try:
            with atomic_file(self.path) as partial, partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self.rows)
        except OSError as error:
            if not self.warned:
                self.warned = True
                rank_zero_warn(f"{to_sentence(error)}; until then the rows are kept in memory")
        self.unsaved = 0

    @rank_zero_only
    @override
    def finalize(self, status: str) -> None:
        self.save()
