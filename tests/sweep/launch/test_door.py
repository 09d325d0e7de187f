"""`gald sweep run`: one cell or all of them, from any scheduler, and many processes at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from torch.distributed import TCPStore

from gald import cli
from gald.sweep.cells import Sweep, declare
from gald.sweep.claim import claimed
from gald.sweep.compose import Source
from gald.sweep.launch import cell_process, door
from gald.sweep.launch.cell import Options, prepare
from gald.sweep.state import Record, read_state, write_record

FAKE = Path(__file__).with_name("fake_cell.py")
# A process that runs one cell with fake_cell.py.
DOOR = f"""
import sys
from gald.sweep.launch import cell_process
cell_process.ENTRY = [{str(FAKE)!r}]
from gald import cli
sys.argv[0] = "gald"
cli.main()
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `gald sweep run` on a sweep of fake cells with these seeds; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cell_process, "ENTRY", [str(FAKE)])
    monkeypatch.setenv("GALD_TRACEBACK", "1")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gald", "sweep", "run", "grid", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    return call


def grid(tmp_path, *seeds):
    declare(tmp_path / "grid", "grid", ["gald", "train", "-m"], [[f"seed={s}"] for s in seeds])
    return Sweep.load(tmp_path / "grid")


def starts(sweep, number):
    return (sweep.place(sweep.cells[number]) / "starts.txt").read_text().splitlines()


def test_each_cell_ends_with_an_exit_code_that_a_scheduler_understands(run, tmp_path, capsys):
    sweep = grid(tmp_path, 1, 3, 10)
    assert [run("--cell", str(number)) for number in range(3)] == [0, 1, 75]
    out = capsys.readouterr().out
    assert "cell 0, seed-1" in out and "done, val/miou 0.1000" in out
    assert "failed (RuntimeError: rank 1 crashed)" in out
    assert "pending (stopped by a signal; resumes from its last checkpoint)" in out
    assert [run("--cell", str(number)) for number in range(3)] == [0, 1, 75]
    assert [len(starts(sweep, number)) for number in range(3)] == [1, 1, 2]


def test_without_a_number_all_cells_run_that_are_not_done(run, tmp_path, capsys):
    sweep = grid(tmp_path, 1, 2, 6)
    assert run("--cell", "1") == 0
    assert run() == 0
    assert [len(starts(sweep, number)) for number in range(3)] == [1, 1, 2]
    assert "sweep grid: 3 of 3 cells done" in capsys.readouterr().out


def test_cell_that_another_process_runs_is_left_alone(run, tmp_path, capsys):
    sweep = grid(tmp_path, 1)
    with claimed(sweep.place(sweep.cells[0])):
        assert run("--cell", "0") == 75
    assert f"process {os.getpid()} on" in capsys.readouterr().out
    assert not (sweep.place(sweep.cells[0]) / "starts.txt").exists()


def test_task_of_a_job_shows_life_while_it_trains(run, tmp_path, monkeypatch):
    """Tasks on other machines do not see its lock, and believe it dead after a while."""
    sweep = grid(tmp_path, 1)
    monkeypatch.setattr("gald.sweep.claim.SIGN_OF_LIFE", 0.05)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")

    def train(folder):
        assert json.loads((folder / "start.json").read_text())["go"]
        path = folder / "owner.json"
        os.utime(path, (0, 0))
        wait_until(lambda: path.stat().st_mtime > time.time() - 60)
        (folder / "results.json").write_text('{"val/miou": 0.5}')

    monkeypatch.setattr(door, "_train", train)
    assert run("--cell", "0") == 0
    folder = sweep.place(sweep.cells[0])
    assert read_state(folder).score == 0.5 and not (folder / "start.json").exists()


@pytest.mark.parametrize("number", ["", "mine"])
def test_tasks_wait_for_the_first_one_of_their_own_start(tmp_path, monkeypatch, number):
    """Two starts of torchrun have the same id without --rdzv-id, or with the same one."""
    monkeypatch.setattr(door, "PATIENCE", 0.5)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", number or "none")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    stores = [TCPStore("localhost", 0, is_master=True) for _ in range(2)]
    for store, restart in ((stores[0], "0"), (stores[1], "0"), (stores[1], "1")):
        monkeypatch.setenv("MASTER_PORT", str(store.port))
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
        with pytest.raises(ValueError, match="the first task of this job has not prepared"):
            door._wait_for_first(tmp_path)
        for go in (True, False):
            door._tell_others(tmp_path, go)
            assert door._wait_for_first(tmp_path) is go


def test_wrong_words_are_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    grid(tmp_path, 1)
    for words, sentence in {
        ("grid", "--cell", "1"): "grid has no cell 1; choose one from 0 to 0",
        ("grid", "--cell", "-1"): "grid has no cell -1; choose one from 0 to 0",
        ("nowhere", "--cell", "0"): "nowhere holds no sweep",
        ("grid", "--jobs", "0"): "--jobs is 0; choose 1 or more",
        ("grid", "--cell", "one"): 'unable to convert "one" into int',
    }.items():
        monkeypatch.setattr(sys, "argv", ["gald", "sweep", "run", *words])
        with pytest.raises(SystemExit, match="1"):
            cli.main()
        assert sentence in capsys.readouterr().err


@pytest.mark.integration
def test_process_that_runs_cells_imports_nothing_heavy_itself(tmp_path):
    grid(tmp_path, 1)
    heavy = ("torch", "pytorch_lightning", "timm", "scipy", "matplotlib", "wandb")
    code = f"import atexit\natexit.register(lambda: print({{*{heavy}}} & {{*sys.modules}}))\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{DOOR}", "sweep", "run", "grid"],
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "set()", done.stdout


@pytest.mark.parametrize(
    "word",
    [
        "model.ga._target_=os.system",
        "+callbacks.x={_target_:os.system,command:true}",
        "name=${oc.env:HOME}",
        "name=${${x}}",
        "'name=\\${oc.env:HOME}'",
        "hydra.searchpath=[file:///tmp]",
        "+model.x._target_=gald.cli.os.system",
    ],
)
def test_plan_of_somebody_else_chooses_no_code(run, tmp_path, word):
    declare(tmp_path / "grid", "grid", [], [["seed=1", word]])
    with pytest.raises(ValueError, match=r"cells\.jsonl has .* in cell 0, and a plan may only"):
        run()


def test_plan_may_name_classes_of_a_trusted_package(run, tmp_path):
    words = ["seed=1", "data.seed=${seed}", "model.ga._target_=mine.Ga"]
    declare(tmp_path / "grid", "grid", [], [words])
    assert run("--trust", "mine") == 0
    declare(tmp_path / "other", "grid", [], [words])


def test_full_disk_fails_the_cell_and_not_the_others(run, tmp_path, monkeypatch, capsys):
    sweep = grid(tmp_path, 1, 2)
    first = sweep.place(sweep.cells[0])

    def write(folder, record):
        if folder.name == first.name:
            raise OSError(28, "No space left on device", str(folder / "cell.json"))
        write_record(folder, record)

    monkeypatch.setattr("gald.sweep.launch.runner.write_record", write)
    assert run() == 1
    assert read_state(sweep.place(sweep.cells[1])).state == "done"
    assert "cell.json (No space left on device); free some space)" in capsys.readouterr().out


def test_config_files_that_changed_are_noticed(run, tmp_path, monkeypatch):
    sweep = grid(tmp_path, 1, 2)
    words = ["data.num_workers=0", "seed=1", "optimizer.lr=0.25"]
    folder = sweep.place(sweep.cells[0])
    folder.mkdir()
    prepare(folder, Options(words, asdict(Source())))
    (folder / "cell.yaml").rename(folder / "config.yaml")
    write_record(folder, Record("done"))
    monkeypatch.setattr(sys, "argv", ["gald", "sweep", "run", "grid"])
    sentence = r"trained with other options .*optimizer\.lr 0\.25 -> 0\.01.*name=NAME"
    with pytest.raises(ValueError, match=sentence):
        cli.main()


def test_cell_has_one_resolved_config_and_goes_on_from_its_checkpoint(tmp_path):
    folder = tmp_path / "cell"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.csv").write_text("left by an attempt without a checkpoint")
    overrides = ["model/ga=psp", "seed=3", "data.eval_batch_size=4"]
    options = Options(overrides, asdict(Source()), 2, 1)
    arguments = prepare(folder, options)
    assert arguments == ["--config-path", str(folder), "--config-name", "cell"]
    assert not (folder / "metrics.csv").exists() and not (folder / "checkpoints").exists()
    text = (folder / "cell.yaml").read_text()
    config = yaml.safe_load(text)
    assert "${" not in text and "defaults" not in config
    assert config["hydra"]["run"]["dir"] == config["output_dir"] == str(folder)
    assert (config["seed"], config["trainer"]["devices"]) == (3, 2)
    assert config["data"]["micro_batch_size"] == config["data"]["eval_batch_size"] == 1
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    assert prepare(folder, options)[-1] == "ckpt_path=last"


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_signal_stops_a_cell_after_its_save_and_a_second_one_undoes_nothing(tmp_path, name):
    sweep = grid(tmp_path, 7)
    folder = sweep.place(sweep.cells[0])
    process = start_door(tmp_path, "0")
    wait_until(lambda: (folder / "ready").exists())
    process.send_signal(getattr(signal, name))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert f"stopped ({name})" in (tmp_path / "door.log").read_text()
    assert read_state(folder).state == "pending"
    assert (folder / "checkpoints" / "last.ckpt").exists()


def test_processes_of_a_cell_in_a_session_of_their_own_end_with_it(run, tmp_path):
    sweep = grid(tmp_path, 11)
    assert run("--cell", "0") == 0
    pid = (sweep.place(sweep.cells[0]) / "stray.txt").read_text()
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.slow
def test_many_processes_never_run_a_cell_twice_and_never_lose_one(tmp_path):
    """200 trivial cells, two launchers and ten processes of single cells, killed at random."""
    sweep = grid(tmp_path, *range(1000, 1200))
    draw = random.Random(0)
    processes = [start_door(tmp_path, None), start_door(tmp_path, None)]
    deadline = time.monotonic() + 1500
    while time.monotonic() < deadline:
        states = [read_state(sweep.place(cell)).state for cell in sweep.cells]
        if states.count("done") == len(states):
            break
        processes = [process for process in processes if process.poll() is None]
        if len(processes) < 12:
            number = draw.choice([i for i, state in enumerate(states) if state != "done"])
            processes.append(start_door(tmp_path, None if draw.random() < 0.1 else str(number)))
        if draw.random() < 0.2:
            draw.choice(processes).send_signal(draw.choice([signal.SIGKILL, signal.SIGTERM]))
        time.sleep(0.3)
    for process in processes:
        process.kill()
        process.wait()
    states = [read_state(sweep.place(cell)).state for cell in sweep.cells]
    assert states.count("done") == 200
    for cell in sweep.cells:
        # Each start writes a line, and one that finds another at work writes "twice".
        assert "twice" not in (sweep.place(cell) / "starts.txt").read_text()
        assert len(json.loads((sweep.place(cell) / "results.json").read_text())) == 1


def start_door(folder, number):
    """Start a process that runs one cell, or all of them."""
    words = ["sweep", "run", "grid", *([] if number is None else ["--cell", number])]
    with (folder / "door.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DOOR, *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
