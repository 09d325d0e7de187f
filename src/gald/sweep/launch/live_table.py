"""Progress display of a sweep: a live table on a terminal, plain lines in a log."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gald.sweep.cells import Cell
from gald.sweep.state import Record

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
    """Live table, or lines in a log, about the cells of a launch; a context manager.

    Args:
        folder: folder of the sweep.
        cells: the cells of the launch.
        console: console to print to; null: standard output.
        logs: whether each cell has a log.
    """

    def __init__(
        self,
        folder: Path,
        cells: Sequence[Cell],
        console: Console | None = None,
        logs: bool = True,
    ) -> None:
        self.folder, self.logs = folder, logs
        self.folders = {cell.number: cell.folder for cell in cells}
        self.labels = {cell.number: cell.label for cell in cells}
        self.console = console or Console(markup=False, emoji=False)
        self.live = Live(console=self.console, auto_refresh=False)
        self.shown: dict[int, tuple[str, int]] = {}
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

    def say(self, line: str) -> None:
        """Print a line, above the table if there is one."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def update(self, cells: Mapping[int, Record], running: Mapping[int, Watched]) -> None:
        """Show changes; calls in quick succession are cheap.

        Args:
            cells: state of each cell by number.
            running: cells that run here.
        """
        if running and time.monotonic() - self.drawn_at < EVERY:
            return
        self.drawn_at = time.monotonic()
        if self.console.is_terminal:
            self.live.update(self._table(cells, running), refresh=True)
        else:
            self._lines(cells, running)

    def _lines(self, cells: Mapping[int, Record], running: Mapping[int, Watched]) -> None:
        first = not self.shown
        states = {number: (cell.state, cell.attempts) for number, cell in cells.items()}
        changed = [number for number, state in states.items() if self.shown.get(number) != state]
        self.shown = states
        ended = sum(state in ("done", "failed") for state, _ in states.values())
        for number in changed:
            cell = cells[number]
            if first and (number not in running and cell.state != "failed"):
                continue  # it is as before this launch
            self.say(
                f"[{ended}/{len(cells)}] {self.labels[number]}: {self._describe(number, cell)}"
            )
        if running and time.monotonic() - self.line_at > LINE_EVERY:
            self.line_at = time.monotonic()
            parts = [f"{self.labels[n]} {_beat(watched)}" for n, watched in running.items()]
            self.say(f"{'; '.join(parts)}; {_left(cells, running)}")

    def _table(self, cells: Mapping[int, Record], running: Mapping[int, Watched]) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("cell", "state", "progress", "val/miou", "time"):
            table.add_column(column, justify="right" if column in ("val/miou", "time") else "left")
        # Running cells come first, because a terminal cuts off the end of a long table.
        order = ("running", "failed", "done", "pending")
        rows = sorted(cells, key=lambda number: order.index(cells[number].state))
        for number in rows[: max(4, self.console.height - 4)]:
            cell, watched = cells[number], running.get(number)
            beat = watched.heartbeat() if watched else {}
            best = beat.get("miou") if watched else cell.score
            seconds = (cell.seconds or 0.0) + (watched.seconds if watched else 0.0)
            bar = (
                ProgressBar(1.0, _progress(beat), width=16) if watched else Text(cell.reason or "")
            )
            table.add_row(
                self.labels[number],
                Text(cell.state, COLOURS[cell.state]),
                bar,
                "" if best is None or math.isnan(best) else f"{best:.4f}",
                duration(seconds) if seconds else "",
            )
        return Group(table, Text(_left(cells, running), "bold"))

    def _describe(self, number: int, cell: Record) -> str:
        """Describe the state of a cell in a few words."""
        if cell.state == "running":
            log = f", log in {self.folder / self.folders[number]}" if self.logs else ""
            return f"running{log}" if cell.attempts < 2 else "running again"
        words = [cell.state, *([f"({cell.reason})"] if cell.reason else [])]
        if cell.state == "done" and cell.score is not None:
            words.append(f"val/miou {cell.score:.4f}")
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


def _left(cells: Mapping[int, Record], running: Mapping[int, Watched]) -> str:
    """Return how many cells have ended, and an estimate of the time that the others need."""
    ended = [cell for cell in cells.values() if cell.state in ("done", "failed")]
    failed = sum(cell.state == "failed" for cell in ended)
    text = f"{len(ended)} of {len(cells)} cells" + (f", {failed} failed" if failed else "")
    durations = [cell.seconds for cell in ended if cell.state == "done" and cell.seconds]
    for watched in running.values():
        progress = _progress(watched.heartbeat())
        if progress > 0.05:
            durations.append(watched.seconds / progress)
    if not durations or len(ended) == len(cells):
        return text
    mean = sum(durations) / len(durations)
    elapsed = sum(min(watched.seconds, mean) for watched in running.values())
    rest = (len(cells) - len(ended)) * mean - elapsed
    return f"{text}, about {duration(rest / max(1, len(running)))} left"
