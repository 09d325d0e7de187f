"""The list of a sweep's cells, and the state of each from its own folder."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gald.sweep.cells import Sweep, declare
from gald.sweep.claim import claim, claimed
from gald.sweep.state import Owner, Record, read_owner, read_record, read_state, write_record

COMMAND = ["gald", "train", "-m", "model/ga=none,psp", "model/ld=mask", "seed=0,1"]
GRID = [
    [f"model/ga={ga}", "model/ld=mask", f"seed={seed}"] for ga in ("none", "psp") for seed in (0, 1)
]


@pytest.fixture
def folder(tmp_path):
    declare(tmp_path / "sweep", "sweep", COMMAND, GRID)
    return tmp_path / "sweep"


@pytest.fixture
def cell(tmp_path):
    (tmp_path / "cell").mkdir()
    return tmp_path / "cell"


def test_declared_cells_load_in_their_order(folder):
    sweep = Sweep.load(folder)
    assert [list(cell.overrides) for cell in sweep.cells] == GRID
    assert [cell.number for cell in sweep.cells] == [0, 1, 2, 3]
    assert sweep.factors == {"model/ga": ["none", "psp"], "seed": ["0", "1"]}
    assert (sweep.name, sweep.command) == ("sweep", COMMAND)
    assert sweep.cells[2].label == "ga-psp_seed-0"


def test_declaring_again_adds_only_new_cells_at_the_end(folder):
    before = (folder / "cells.jsonl").read_bytes()
    more = [["model/ga=gap", "model/ld=mask", "seed=0"], *GRID, GRID[0]]
    cells = declare(folder, "other", ["gald"], more)
    assert [cell.number for cell in cells] == [4, 0, 1, 2, 3, 0]
    assert (folder / "cells.jsonl").read_bytes().startswith(before)
    assert Sweep.load(folder).name == "sweep"


def test_other_keys_or_another_primary_contrast_need_a_new_sweep(folder):
    with pytest.raises(ValueError, match=r"but this one is over .*optimizer\.lr.* new folder with"):
        declare(folder, "sweep", COMMAND, [[*GRID[0], "optimizer.lr=1"]])
    with pytest.raises(ValueError, match="primary contrast none, but this command has 'ga=psp'"):
        declare(folder, "sweep", COMMAND, GRID, "ga=psp")


def test_equal_overrides_are_one_cell_whatever_their_order(tmp_path):
    words = [["seed=0", "model/ga=psp"], ["model/ga=psp", "seed=0", "hydra.launcher.jobs=3"]]
    first, second = declare(tmp_path / "s", "s", [], words)
    assert first is second and len(Sweep.load(tmp_path / "s").cells) == 1


def test_processes_that_declare_at_once_lose_no_cell(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda n: declare(tmp_path, "s", [], [[f"seed={n}"]]), range(40)):
            pass
    cells = Sweep.load(tmp_path).cells
    assert sorted(int(cell.overrides[0][5:]) for cell in cells) == list(range(40))
    assert [cell.number for cell in cells] == list(range(40))


def test_line_that_a_crash_has_cut_was_never_declared(folder):
    path = folder / "cells.jsonl"
    path.write_bytes(path.read_bytes() + b'{"number": 4, "fol')
    assert len(Sweep.load(folder).cells) == 4
    declare(folder, "sweep", COMMAND, [["model/ga=gap", "model/ld=mask", "seed=0"]])
    assert len(Sweep.load(folder).cells) == 5


def test_folder_without_a_sweep_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no sweep .* name the folder"):
        Sweep.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (1, "[]"),
        (1, "{"),
        (1, '{"version": 2}'),
        (3, "null"),
        (3, '{"number": 7, "folder": "a", "overrides": []}'),
        (3, '{"number": 1, "folder": "../a", "overrides": []}'),
        (3, '{"number": 1, "folder": "/etc", "overrides": []}'),
        (3, '{"number": 1, "folder": "a", "overrides": [1]}'),
    ],
)
def test_damaged_line_is_named(folder, line, content):
    path = folder / "cells.jsonl"
    lines = path.read_text().splitlines()
    lines[line - 1] = content
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"cells\.jsonl h.* (line {line}|cell {line - 2})\b"):
        Sweep.load(folder)


def test_sweep_of_the_first_version_can_be_read_but_not_continued(tmp_path):
    cells = {"a1": {"overrides": ["seed=0"], "folder": "seed-0_a1", "state": "done"}}
    content = {"version": 1, "name": "old", "command": ["gald"], "cells": cells}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "seed-0_a1").mkdir()
    (tmp_path / "seed-0_a1" / "results.json").write_text('{"val/miou": 0.25}')
    sweep = Sweep.load(tmp_path)
    state = read_state(sweep.place(sweep.cells[0]))
    assert (sweep.name, state.state, state.score) == ("old", "done", 0.25)
    with pytest.raises(ValueError, match=r"of an earlier version.*name=NAME"):
        declare(tmp_path, "old", [], [["seed=1"]])


def test_state_of_a_cell_follows_its_files(cell):
    assert read_state(cell).state == "pending"
    record = Record("failed", "out of memory", 2, 9.5, 4)
    write_record(cell, record)
    assert read_record(cell) == record and read_state(cell).reason == "out of memory"
    write_record(cell, Record("done", score=0.5))
    assert read_state(cell).reason == "its results were deleted"
    (cell / "results.json").write_text('{"val/miou": 0.5}')
    assert read_state(cell).state == "done"
    write_record(cell, Record(attempts=1))  # its launcher ended before it could note the end
    assert (read_state(cell).state, read_state(cell).score) == ("done", 0.5)
    (cell / "results.json").write_text('{"val/miou": 0.5, "missing_split": "test"}')
    assert read_state(cell).state == "pending"
    (cell / "cell.json").write_text("{")
    state = read_state(cell)
    assert state.state == "failed" and str(cell / "cell.json") in state.reason


def test_a_cell_has_one_owner(cell):
    with claimed(cell) as mine:
        assert mine and claim(cell) is None
        state = read_state(cell)
        assert state.state == "running" and f"process {os.getpid()} on " in state.owner
        assert state.silent < 60
    assert read_owner(cell) is None and read_state(cell).state == "pending"
    with claimed(cell) as again:
        assert again


def test_owner_shows_life_until_it_gives_the_cell_back(cell, monkeypatch):
    """It is busy all the time, as a task of a job that trains in its own process."""
    monkeypatch.setattr("gald.sweep.claim.SIGN_OF_LIFE", 0.05)
    path = cell / "owner.json"
    with claimed(cell):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < deadline, "it gave no sign of life"
        assert [thread.name for thread in threading.enumerate()].count("claim") == 1
    assert "claim" not in [thread.name for thread in threading.enumerate()]
    path.write_text("of the next owner")
    os.utime(path, (0, 0))
    time.sleep(0.2)
    assert path.stat().st_mtime == 0


def test_dead_owner_loses_its_cell(cell):
    code = "import os, sys; from pathlib import Path; from gald.sweep.claim import claim; "
    code += "claim(Path(sys.argv[1])); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(cell)], check=False)
    assert not read_owner(cell).alive
    assert "ended" in read_state(cell).reason
    with claimed(cell) as mine:
        assert mine


def test_owner_on_another_machine_is_believed_for_three_minutes(cell):
    content = {"host": "elsewhere", "pid": 1, "started": 5, "job": "77", "since": 0.0}
    (cell / "owner.json").write_text(json.dumps(content))
    state = read_state(cell)
    assert (state.state, state.owner) == ("running", "process 1 on elsewhere (job 77)")
    assert claim(cell) is None
    old = os.stat(cell / "owner.json").st_mtime - 200
    os.utime(cell / "owner.json", (old, old))
    assert read_state(cell).state == "pending"
    with claimed(cell) as mine:
        assert mine


@pytest.mark.parametrize(
    "wrong",
    [
        {"pid": "12"},
        {"pid": True},
        {"pid": -1},
        {"pid": 12.5},
        {"pid": 99999999999999999999},
        {"host": None},
        {"started": "5"},
        {"job": 7},
        {"since": "now"},
        {"since": 10**400},
        {"since": float("nan")},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_wrong_record_of_an_owner_keeps_nobody_away(cell, wrong):
    with claimed(cell):
        content = json.loads((cell / "owner.json").read_text())
    (cell / "owner.json").write_text(json.dumps(content | wrong))
    assert read_state(cell).state == "pending"
    with claimed(cell) as mine:
        assert mine


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", "[" * 2000])
def test_owner_file_without_a_record_keeps_nobody_away(cell, content):
    (cell / "owner.json").write_text(content)
    assert read_owner(cell) is None
    with claimed(cell) as mine:
        assert mine


def test_process_with_the_id_of_a_dead_owner_is_not_the_owner():
    owner = Owner.this_process()
    assert owner.alive
    later = Owner(owner.host, owner.pid, owner.started - 1, None, owner.since)
    assert not later.alive
