"""Sweeps of fake cells that end in every possible way; test_traps trains real networks."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gald import cli
from gald.errors import to_sentence
from gald.sweep.cells import Sweep, declare
from gald.sweep.claim import claimed
from gald.sweep.launch import cell_process
from gald.sweep.state import read_state

FAKE = Path(__file__).with_name("fake_cell.py")
SMALL = [
    "data.global_batch_size=8",
    "logger=csv",
    "trainer.accelerator=cpu",
    "hydra.launcher.jobs=4",
]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs `gald train -m seed=SEEDS` on fake cells; returns exit code and sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cell_process, "ENTRY", [str(FAKE)])
    monkeypatch.setenv("GALD_TRACEBACK", "1")

    def run(seeds, *overrides):
        arguments = ["train", "-m", f"seed={seeds}", *SMALL, *overrides]
        monkeypatch.setattr(sys, "argv", ["gald", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return code, Sweep.load(tmp_path / "runs" / "train")

    return run


def place(cells, seed):
    (cell,) = (cell for cell in cells.cells if f"seed={seed}" in cell.overrides)
    return cells.place(cell)


def state(cells, seed):
    return read_state(place(cells, seed))


def starts(cells, seed):
    return (place(cells, seed) / "starts.txt").read_text().splitlines()


def survivors(folder):
    """Return the processes of cells in a sweep's folder that still run."""
    pids = [pid for file in folder.rglob("pids.txt") for pid in file.read_text().split()]
    assert pids
    return [pid for pid in pids if runs(pid)]


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.mark.integration
def test_every_kind_of_end_is_recognised_and_stops_no_other_cell(sweep, capsys):
    code, cells = sweep("1,2,3,4,5,6,8,9,10", "hydra.launcher.watchdog_minutes=0.05")
    assert code == 1
    states = {seed: state(cells, seed).state for seed in (1, 2, 3, 4, 5, 6, 8, 9, 10)}
    done, failed = ("done", "failed")
    assert states == {
        **{1: done, 2: done, 3: failed, 4: failed, 5: done, 6: done},
        **{8: failed, 9: failed, 10: "pending"},
    }
    assert state(cells, 3).reason == "RuntimeError: rank 1 crashed"
    assert state(cells, 4).reason.startswith("no progress for 0.05 minutes")
    assert state(cells, 8).reason == "ended by SIGKILL from outside, 3 times"
    assert "with micro-batch size 1" in state(cells, 9).reason
    assert survivors(cells.path) == []
    out = capsys.readouterr()
    assert "failed: seed-3" in out.err and "rank 1 crashed" in out.err
    assert "seed-1: done val/miou 0.1000" in out.out


def test_out_of_memory_restarts_with_half_the_micro_batch(sweep):
    _, cells = sweep("5")
    assert starts(cells, 5) == [
        "fresh None",
        "fresh 2",
        "fresh 1",
    ]
    assert state(cells, 5).micro_batch_size == 1
    assert state(cells, 5).state == "done"


@pytest.mark.integration
def test_killed_cell_resumes_from_its_checkpoint(sweep):
    _, cells = sweep("6")
    assert starts(cells, 6) == ["fresh None", "resumed None"]


@pytest.mark.integration
def test_same_command_runs_only_missing_cells(sweep, capsys):
    assert sweep("1,10")[0] == 1
    _, cells = sweep("1,2,10")
    assert len(starts(cells, 1)) == len(starts(cells, 2)) == 1
    assert starts(cells, 10) == ["fresh None", "resumed None"]
    assert cells.factors == {"seed": ["1", "10", "2"]}
    assert "[1/3] seed-2: running" in capsys.readouterr().out


@pytest.mark.integration
def test_a_command_for_a_part_of_a_sweep_answers_for_its_own_cells(sweep, capsys):
    assert sweep("1,3")[0] == 1
    capsys.readouterr()
    assert sweep("1,2")[0] == 0
    out = capsys.readouterr().out
    assert "2 of 3 cells done" in out and "seed-3" not in out.partition("cells done")[2]
    assert "not named by this command: 1; to list them: gald sweep status runs/train" in out


@pytest.mark.integration
def test_failed_cells_wait_for_retry(sweep, monkeypatch, capsys):
    sweep("1,3")
    code, cells = sweep("1,3")
    assert code == 1 and len(starts(cells, 3)) == 1
    assert "to let failed cells run: gald sweep retry runs/train" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["gald", "sweep", "retry", "runs/train"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert "1 cells are pending again; to run them:\ngald sweep run" in capsys.readouterr().out
    _, cells = sweep("1,3")
    assert len(starts(cells, 3)) == 2


def test_status_names_states_scores_and_reasons(sweep, monkeypatch, capsys):
    sweep("2,3")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["gald", "sweep", "status", "runs/train"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    out = capsys.readouterr().out
    assert "0.2000" in out and "rank 1 crashed" in out and "1 done, 1 failed" in out


def test_duplicates_run_once(sweep, capsys):
    _, cells = sweep("1,2,1,2")
    assert len(cells.cells) == 2
    assert "2 cells, 2 duplicates left out" in capsys.readouterr().out


@pytest.mark.integration
def test_sweep_over_other_keys_needs_a_new_folder(sweep):
    sweep("1")
    with pytest.raises(ValueError, match=r"holds a sweep over .* choose a new folder with name="):
        sweep("1,2", "model/ga=none,psp")


def test_batches_of_a_sweep_continue_after_a_failed_one(sweep):
    code, cells = sweep("3,1", "hydra.sweeper.max_batch_size=1")
    assert code == 1 and state(cells, 1).state == "done"


def test_globbed_factors_are_cells(sweep):
    _, cells = sweep("1", "model/neck=glob(*)")
    assert cells.factors == {"model/neck": ["fpn", "none"]}
    assert [read_state(cells.place(cell)).state for cell in cells.cells] == ["done", "done"]


def test_cell_gets_its_number_of_threads(sweep, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "7")
    _, cells = sweep("1")
    environment = json.loads((place(cells, 1) / "environment.json").read_text())
    assert environment["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 4))
    assert "WORLD_SIZE" not in environment


class Launcher:
    """A launcher in its own process: a fork of this one, which has already imported everything."""

    def __init__(self, folder, number):
        self.output = folder / f"launcher_{number}.txt"
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            os._exit(self._run(folder))

    def _run(self, folder):
        code = 1
        with suppress(BaseException):
            with self.output.open("wb", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            for name, number in (("stdout", 1), ("stderr", 2)):
                setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            os.environ.pop("GALD_TRACEBACK", None)
            cell_process.ENTRY = [str(FAKE)]
            sys.argv = ["gald", "train", "-m", "seed=7", *SMALL]
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
        return code

    def send(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self):
        """Return its exit code and its output."""

        def has_ended():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            return pid

        if self.returncode is None:
            wait_until(has_ended, seconds=180)
        return self.returncode, self.output.read_text()


@pytest.fixture
def launcher(tmp_path):
    """Starts launchers with a waiting cell, and ends them after the test."""
    started = []

    def start():
        started.append(Launcher(tmp_path, len(started)))
        return started[-1]

    yield start
    for process in started:
        process.send(signal.SIGKILL)
        process.wait()
    for pid in survivors(tmp_path):  # a fake cell does not end with its launcher
        with suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)


@pytest.mark.integration
def test_interrupted_launcher_lets_its_cells_save(launcher, tmp_path):
    process = launcher()
    wait_until(lambda: list(tmp_path.rglob("ready")))
    process.send(signal.SIGINT)
    code, out = process.wait()
    assert code == 130 and "gald sweep run runs/train resumes" in out
    cells = Sweep.load(tmp_path / "runs" / "train")
    assert state(cells, 7).state == "pending"
    assert survivors(tmp_path) == []

    assert launcher().wait()[0] == 0
    assert starts(cells, 7) == ["fresh None", "resumed None"]


@pytest.mark.slow
def test_second_launcher_waits_and_takes_over_what_the_first_leaves(launcher, tmp_path):
    first = launcher()
    wait_until(lambda: list(tmp_path.rglob("ready")))
    second = launcher()
    wait_until(second.output.exists)
    wait_until(lambda: "sweep runs/train: 1 cells" in second.output.read_text())
    first.send(signal.SIGKILL)
    first.wait()
    cells = Sweep.load(tmp_path / "runs" / "train")
    assert len(starts(cells, 7)) == 1
    for pid in survivors(tmp_path):  # a fake cell does not end with its launcher
        os.kill(int(pid), signal.SIGTERM)
    code, out = second.wait()
    assert code == 0 and len(starts(cells, 7)) == 2, out


def test_sigterm_stops_a_launcher_too(launcher, tmp_path):
    process = launcher()
    wait_until(lambda: list(tmp_path.rglob("ready")))
    process.send(signal.SIGTERM)
    code, out = process.wait()
    assert code == 75 and "gald sweep run runs/train resumes" in out
    assert survivors(tmp_path) == []


@pytest.fixture
def search(sweep, tmp_path, monkeypatch):
    """Runs an Optuna search over seeds; returns exit code, sweep and trials."""
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    monkeypatch.setitem(sweep.__globals__, "SMALL", SMALL[:3])
    storage = f"sqlite:///{tmp_path}/study.db"

    def run(seeds, trials, launcher, *overrides):
        study = [
            "optimizer.lr=interval(0.001,0.1)",
            "hydra/sweeper=optuna",
            "hydra.sweeper.study_name=study",
            f"hydra.sweeper.storage={storage}",
            "hydra.sweeper.direction=maximize",
            f"hydra.sweeper.n_trials={trials}",
            "hydra.sweeper.n_jobs=2",
            "hydra.sweeper.sampler.seed=1",
            f"hydra/launcher={launcher}",
        ]
        code, cells = sweep(seeds, *study, *overrides)
        return code, cells, optuna.load_study(study_name="study", storage=storage).trials

    return run


# Hydra's plugin is for an older Optuna.
optuna_is_older = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.mark.integration
@pytest.mark.one_in(3)
@optuna_is_older
@pytest.mark.parametrize("launcher", ["gald", "basic"])
def test_optuna_continues_after_a_failed_trial_and_resumes_from_its_storage(search, launcher):
    for count in (4, 8):  # of the first two trials, one is done and one fails
        code, cells, trials = search("choice(2,3)", 4, launcher)
        assert len(trials) == count
        states = {trial.state.name for trial in trials}
        assert states == {"COMPLETE", "FAIL"} and code == 1
        ends = {read_state(cells.place(cell)).state for cell in cells.cells}
        assert ends == {"done", "failed"}
    assert max(trial.value or 0.0 for trial in trials) == pytest.approx(0.2)


@pytest.mark.integration
@optuna_is_older
@pytest.mark.parametrize("launcher", ["gald", "basic"])
def test_optuna_continues_after_a_trial_without_a_score(search, launcher):
    code, cells, trials = search("choice(2,12)", 2, launcher)
    seeds = {trial.params["seed"]: trial.state.name for trial in trials}
    assert seeds == {2: "COMPLETE", 12: "FAIL"} and code == 0
    assert state(cells, 12).state == "done"


@optuna_is_older
@pytest.mark.parametrize(
    ("launcher", "storage"), [("gald", "null"), ("basic", "sqlite:///study.db")]
)
def test_search_in_which_every_trial_fails_says_where_the_reasons_are(search, launcher, storage):
    with pytest.raises(ValueError) as error:
        search("choice(3)", 2, launcher, f"hydra.sweeper.storage={storage}")
    assert "gald sweep status FOLDER" in to_sentence(error.value)


@pytest.mark.integration
@optuna_is_older
def test_search_waits_for_a_cell_that_another_process_runs(search, tmp_path, monkeypatch):
    """Optuna may choose the same cell for two trials, and needs its score for both."""
    monkeypatch.setattr("gald.sweep.launch.runner.ELSEWHERE", 0.1)
    words = ["optimizer.lr=0.01", "seed=2", *SMALL[:3]]
    (cell,) = declare(tmp_path / "runs" / "train", "train", ["gald", "train", "-m"], [words])
    held = threading.Event()

    def run_elsewhere():
        with claimed(tmp_path / "runs" / "train" / cell.folder):
            held.set()
            time.sleep(1.5)

    other = threading.Thread(target=run_elsewhere)
    other.start()
    held.wait()
    code, cells, (trial,) = search("2", 1, "basic", "optimizer.lr=choice(0.01)")
    other.join()
    assert (trial.state.name, code, len(cells.cells)) == ("COMPLETE", 0, 1)


@pytest.mark.slow
def test_jobs_of_other_launchers_are_cells_too(sweep, monkeypatch, capsys):
    monkeypatch.setitem(sweep.__globals__, "SMALL", SMALL[:3])
    code, cells = sweep("2,3", "hydra/launcher=basic")
    assert code == 1 and "rank 1 crashed" in capsys.readouterr().err
    assert [state(cells, seed).state for seed in (2, 3)] == ["done", "failed"]
    assert cells.command[:3] == ["gald", "train", "-m"]
    sweep("2,3", "hydra/launcher=basic")
    assert len(starts(cells, 2)) == 1
