"""Progress display of a sweep: a live table on a terminal, plain lines in a log."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gald.sweep.launch.jobs import score
from gald.sweep.manifest import Cell, Manifest

EVERY = 1.0  # seconds between two updates
LINE_EVERY = 60.0  # seconds between two lines about running cells, if there is no terminal
COLOURS = {"pending": "dim", "running": "cyan", "done": "green", "failed": "red"}


class Watched(Protocol):
    """Progress of a running cell."""

    @property
    def seconds(self) -> float:
        """Time since its start."""
        ...

    def heartbeat(self) -> dict[str, Any]:
        """Return its newest heartbeat."""
        ...


class LiveTable:
    """Live table, or lines in a log, about the cells of a sweep; a context manager.

    Args:
        folder: folder of the sweep.
        labels: labels of the cells that this launch runs, by hash.
        console: console to print to; null: standard output.
    """

    def __init__(
        self, folder: Path, labels: Mapping[str, str], console: Console | None = None
    ) -> None:
        self.folder, self.labels = folder, labels
        self.console = console or Console(markup=False, emoji=False)
        self.live = Live(console=self.console, auto_refresh=False)
        self.states = {
            key: (cell.state, cell.attempts) for key, cell in Manifest.load(folder).cells.items()
        }
        self.drawn_at = self.line_at = -math.inf

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            self.live.start()
        self.line_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, running: Mapping[str, Watched]) -> None:
        """Show changes; calls in quick succession are cheap."""
        if running and time.monotonic() - self.drawn_at < EVERY:
            return
        self.drawn_at = time.monotonic()
        cells = Manifest.load(self.folder).cells
        if self.console.is_terminal:
            self.live.update(self._table(cells, running), refresh=True)
        else:
            self._lines(cells, running)

    def _lines(self, cells: Mapping[str, Cell], running: Mapping[str, Watched]) -> None:
        total = len(self.labels)
        for key, label in self.labels.items():
            cell = cells[key]
            if self.states.get(key) == (cell.state, cell.attempts):
                continue
            self.states[key] = (cell.state, cell.attempts)
            ended = sum(cells[k].state in ("done", "failed") for k in self.labels)
            self._print(f"[{ended}/{total}] {label}: {describe(cell, self.folder)}")
        if running and time.monotonic() - self.line_at > LINE_EVERY:
            self.line_at = time.monotonic()
            parts = [f"{self.labels[key]} {_beat(watched)}" for key, watched in running.items()]
            self._print(f"{'; '.join(parts)}; {_left(cells, self.labels, running)}")

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _table(self, cells: Mapping[str, Cell], running: Mapping[str, Watched]) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("cell", "state", "progress", "val/miou", "time"):
            table.add_column(column, justify="right" if column in ("val/miou", "time") else "left")
        # Running cells come first, because a terminal cuts off the end of a long table.
        order = ("running", "failed", "done", "pending")
        for key in sorted(self.labels, key=lambda k: order.index(cells[k].state)):
            cell, watched = cells[key], running.get(key)
            beat = watched.heartbeat() if watched else {}
            progress = _progress(beat) if watched else float(cell.state == "done")
            best = beat.get("miou") if watched else score(self.folder, cell)
            seconds = (cell.seconds or 0.0) + (watched.seconds if watched else 0.0)
            table.add_row(
                self.labels[key],
                Text(cell.state, COLOURS[cell.state]),
                ProgressBar(1.0, progress, width=16) if watched else Text(cell.reason or ""),
                "" if best is None or math.isnan(best) else f"{best:.4f}",
                duration(seconds) if seconds else "",
            )
        return Group(table, Text(_left(cells, self.labels, running), "bold"))


def describe(cell: Cell, folder: Path) -> str:
    """Describe the state of a cell in a few words."""
    if cell.state == "running":
        return f"running, log in {folder / cell.folder}" if cell.attempts == 1 else "running again"
    words = [cell.state, *([f"({cell.reason})"] if cell.reason else [])]
    if cell.state == "done":
        words.append(f"val/miou {score(folder, cell):.4f}")
    return " ".join([*words, *([f"in {duration(cell.seconds)}"] if cell.seconds else [])])


def duration(seconds: float) -> str:
    """Format seconds: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _progress(beat: Mapping[str, Any]) -> float:
    return min(1.0, beat["step"] / beat["steps"]) if beat.get("steps") else 0.0


def _beat(watched: Watched) -> str:
    beat = watched.heartbeat()
    best = "" if beat.get("miou") is None else f", val/miou {beat['miou']:.4f}"
    return f"{100 * _progress(beat):.0f} %{best}"


def _left(
    cells: Mapping[str, Cell], labels: Mapping[str, str], running: Mapping[str, Watched]
) -> str:
    """Return how many cells have ended, and an estimate of the time that the others need."""
    launched = [cells[key] for key in labels]
    ended = [cell for cell in launched if cell.state in ("done", "failed")]
    failed = sum(cell.state == "failed" for cell in ended)
    text = f"{len(ended)} of {len(launched)} cells" + (f", {failed} failed" if failed else "")
    durations = [cell.seconds for cell in launched if cell.state == "done" and cell.seconds]
    for watched in running.values():
        progress = _progress(watched.heartbeat())
        if progress > 0.05:
            durations.append(watched.seconds / progress)
    if not durations or len(ended) == len(launched):
        return text
    mean = sum(durations) / len(durations)
    elapsed = sum(min(watched.seconds, mean) for watched in running.values())
    rest = (len(launched) - len(ended)) * mean - elapsed
    return f"{text}, about {duration(rest / max(1, len(running)))} left"
