import io

from rich.console import Console

from gald.sweep.launch.live_table import LiveTable, duration
from gald.sweep.manifest import Cell, Manifest


class Running:
    seconds = 30.0

    def heartbeat(self):
        return {"step": 5, "steps": 20, "miou": 0.5}


def manifest(folder):
    cells = {
        "a": Cell(["seed=0"], "seed-0", "failed", "out of memory", 1, 4.0),
        "b": Cell(["seed=1"], "seed-1", "running", attempts=1),
    }
    Manifest(folder, "sweep", [], cells).save()
    return Manifest.load(folder)


def test_durations_are_formatted_in_readable_units():
    assert [duration(s) for s in (4.2, 185, 7800)] == ["4 s", "3 min 05 s", "2 h 10 min"]


def test_terminal_shows_progress_score_and_time_left(tmp_path):
    manifest(tmp_path)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with LiveTable(tmp_path, {"a": "seed-0", "b": "seed-1"}, console) as table:
        table.update({"b": Running()})
    text = out.getvalue()
    assert "0.5000" in text and "out of memory" in text
    assert "1 of 2 cells, 1 failed, about 1 min 30 s left" in text


def test_log_gets_a_line_for_every_change(tmp_path):
    sweep = manifest(tmp_path)
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=60)
    with LiveTable(tmp_path, {"a": "seed-0", "b": "seed-1"}, console) as table:
        table.update({})
        sweep.cells["b"].state, sweep.cells["b"].reason = "failed", "no progress"
        sweep.save()
        table.update({})
    assert out.getvalue() == "[2/2] seed-1: failed (no progress)\n"
