"""What a waiting person sees of a sweep: a live table on a terminal, plain lines in a log."""

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

EVERY = 1.0  # seconds between two drawings
LINE_EVERY = 60.0  # seconds between two lines about what runs, where there is no terminal
COLOURS = {"pending": "dim", "running": "cyan", "done": "green", "failed": "red"}


class Watched(Protocol):
    """What is shown of a running cell."""

    @property
    def seconds(self) -> float:
        """Time since its start."""
        ...

    def heartbeat(self) -> dict[str, Any]:
        """Its newest sign of life."""
        ...


class LiveTable:
    """Shows the cells of a sweep while it is in its `with` block.

    Args:
        folder: of the sweep.
        labels: names of the cells that this launch runs, by hash.
        console: where to show them; null: standard output.
    """

    def __init__(
        self, folder: Path, labels: Mapping[str, str], console: Console | None = None
    ) -> None:
        self.folder, self.labels = folder, labels
        self.console = console or Console()
        self.live = Live(console=self.console, auto_refresh=False)
        self.states = {
            key: (cell.state, cell.attempts) for key, cell in Manifest.load(folder).cells.items()
        }
        self.drawn_at = self.told_at = -math.inf

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            self.live.start()
        self.told_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, running: Mapping[str, Watched]) -> None:
        """Show what has changed; cheap when called often."""
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
            self._say(f"[{ended}/{total}] {label}: {describe(cell, self.folder)}")
        if running and time.monotonic() - self.told_at > LINE_EVERY:
            self.told_at = time.monotonic()
            parts = [f"{self.labels[key]} {_beat(watched)}" for key, watched in running.items()]
            self._say(f"{'; '.join(parts)}; {_left(cells, self.labels, running)}")

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _table(self, cells: Mapping[str, Cell], running: Mapping[str, Watched]) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("cell", "state", "progress", "val/miou", "time"):
            table.add_column(column, justify="right" if column in ("val/miou", "time") else "left")
        # What runs comes first: a terminal cuts a long table off at its foot.
        order = ("running", "failed", "done", "pending")
        for key in sorted(self.labels, key=lambda k: order.index(cells[k].state)):
            cell, watched = cells[key], running.get(key)
            beat = watched.heartbeat() if watched else {}
            share = _share(beat) if watched else float(cell.state == "done")
            best = beat.get("miou") if watched else score(self.folder, cell)
            seconds = (cell.seconds or 0.0) + (watched.seconds if watched else 0.0)
            table.add_row(
                self.labels[key],
                Text(cell.state, COLOURS[cell.state]),
                ProgressBar(1.0, share, width=16) if watched else Text(cell.reason or ""),
                "" if best is None or math.isnan(best) else f"{best:.4f}",
                duration(seconds) if seconds else "",
            )
        return Group(table, Text(_left(cells, self.labels, running), "bold"))


def describe(cell: Cell, folder: Path) -> str:
    """A cell's state in a few words."""
    if cell.state == "running":
        return f"running, log in {folder / cell.folder}" if cell.attempts == 1 else "running again"
    words = [cell.state, *([f"({cell.reason})"] if cell.reason else [])]
    if cell.state == "done":
        words.append(f"val/miou {score(folder, cell):.4f}")
    return " ".join([*words, *([f"in {duration(cell.seconds)}"] if cell.seconds else [])])


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _share(beat: Mapping[str, Any]) -> float:
    return min(1.0, beat["step"] / beat["steps"]) if beat.get("steps") else 0.0


def _beat(watched: Watched) -> str:
    beat = watched.heartbeat()
    best = "" if beat.get("miou") is None else f", val/miou {beat['miou']:.4f}"
    return f"{100 * _share(beat):.0f} %{best}"


def _left(
    cells: Mapping[str, Cell], labels: Mapping[str, str], running: Mapping[str, Watched]
) -> str:
    """How many cells have ended, and how long the others should take at this pace."""
    mine = [cells[key] for key in labels]
    ended = [cell for cell in mine if cell.state in ("done", "failed")]
    failed = sum(cell.state == "failed" for cell in ended)
    text = f"{len(ended)} of {len(mine)} cells" + (f", {failed} failed" if failed else "")
    known = [cell.seconds for cell in mine if cell.state == "done" and cell.seconds]
    for watched in running.values():
        share = _share(watched.heartbeat())
        if share > 0.05:
            known.append(watched.seconds / share)
    if not known or len(ended) == len(mine):
        return text
    whole = sum(known) / len(known)
    begun = sum(min(watched.seconds, whole) for watched in running.values())
    rest = (len(mine) - len(ended)) * whole - begun
    return f"{text}, about {duration(rest / max(1, len(running)))} left"
