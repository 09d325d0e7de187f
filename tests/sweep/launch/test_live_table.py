import io

from rich.console import Console

from gald.sweep.cells import Cell
from gald.sweep.launch.live_table import LiveTable, duration
from gald.sweep.state import Record


class Running:
    seconds = 30.0

    def heartbeat(self):
        return {"step": 5, "steps": 20, "miou": 0.5}


CELLS = [Cell(0, "seed-0_1a", ("seed=0",)), Cell(1, "seed-1_2b", ("seed=1",))]
RECORDS = {0: Record("failed", "out of memory", 1, 4.0), 1: Record("running", attempts=1)}


def test_durations_are_formatted_in_readable_units():
    assert [duration(s) for s in (4.2, 185, 7800)] == ["4 s", "3 min 05 s", "2 h 10 min"]


def test_terminal_shows_progress_score_and_time_left(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with LiveTable(tmp_path, CELLS, console) as table:
        table.update(RECORDS, {1: Running()})
    text = out.getvalue()
    assert "0.5000" in text and "out of memory" in text
    assert "1 of 2 cells, 1 failed, about 1 min 30 s left" in text


def test_log_gets_a_line_for_every_change(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=60)
    with LiveTable(tmp_path, CELLS, console) as table:
        table.update({0: Record("pending"), 1: RECORDS[1]}, {1: Running()})
        table.drawn_at -= 10
        table.update({0: Record("pending"), 1: Record("failed", "no progress")}, {})
        table.update({0: RECORDS[0], 1: Record("failed", "no progress")}, {})
    assert out.getvalue().splitlines() == [
        f"[0/2] seed-1: running, log in {tmp_path}/seed-1_2b",
        "[1/2] seed-1: failed (no progress)",
        "[2/2] seed-0: failed (out of memory) in 4 s",
    ]
