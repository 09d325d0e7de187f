"""Cells as copies of a process that has imported everything: equal to cold ones in every way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gald import cli
from gald.sweep.cells import Sweep, declare
from gald.sweep.launch import cell_process, devices, warm
from gald.sweep.state import read_state

FAKE = Path(__file__).with_name("fake_cell.py")
OF_A_RUN = ("seconds", "command", "commit")  # in results.json
SMALL = ["data.global_batch_size=8", "logger=csv", "trainer.accelerator=cpu"]
# A process that runs fake cells, and imports nothing for them.
DOOR = f"""
import sys
from gald.sweep.launch import cell_process, devices, warm
cell_process.ENTRY, warm.PRELOAD = [{str(FAKE)!r}], ""
from gald import cli
cli.main()
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs `gald train -m seed=SEEDS` on fake cells, in a folder; returns exit code and sweep."""
    monkeypatch.setattr(cell_process, "ENTRY", [str(FAKE)])
    monkeypatch.setattr(warm, "PRELOAD", "")
    monkeypatch.setenv("GALD_TRACEBACK", "1")

    def run(name, seeds, *overrides):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setattr(sys, "argv", ["gald", "train", "-m", f"seed={seeds}", *overrides])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return code, Sweep.load(tmp_path / name / "runs" / "train")

    return run


@pytest.fixture
def warm_run(sweep, tmp_path, monkeypatch):
    """Runs `gald sweep run --warm` on fake cells with these seeds; returns exit code and sweep."""

    def run(name, seeds, *words):
        monkeypatch.chdir(tmp_path)
        declared(tmp_path / name, [[f"seed={seed}"] for seed in seeds])
        monkeypatch.setattr(sys, "argv", ["gald", "sweep", "run", name, *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, Sweep.load(tmp_path / name)

    return run


@pytest.fixture
def preload(tmp_path, monkeypatch):
    """Makes a module of this source the one that imports for all cells."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def write(source):
        (tmp_path / "mine.py").write_text(source)
        monkeypatch.setattr(warm, "PRELOAD", "mine")

    return write


def place(cells, seed):
    (cell,) = (cell for cell in cells.cells if f"seed={seed}" in cell.overrides)
    return cells.place(cell)


def ends(cells):
    """Return how each cell ended, after how many starts, and with which batch."""
    states = [read_state(cells.place(cell)) for cell in cells.cells]
    return [(s.state, s.reason, s.attempts, s.micro_batch_size, s.score) for s in states]


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.mark.integration
def test_warm_cells_end_in_every_way_as_cold_ones_do(sweep, monkeypatch):
    monkeypatch.setattr("gald.sweep.launch.runner.POLL", 0.05)
    seeds = "1,3,4,6,10,11"
    options = [*SMALL, "hydra.launcher.jobs=6", "hydra.launcher.watchdog_minutes=0.02"]
    cold_code, cold = sweep("cold", seeds, *options)
    copied_code, copied = sweep("warm", seeds, *options, "hydra.launcher.warm=true")
    assert copied_code == cold_code == 1
    assert ends(copied) == ends(cold)
    for seed in seeds.split(","):
        for name in ("log.txt", "starts.txt"):
            texts = [(place(cells, seed) / name).read_text() for cells in (cold, copied)]
            assert texts[0] == texts[1], (seed, name)
    pids = [pid for file in copied.path.rglob("pids.txt") for pid in file.read_text().split()]
    assert pids and not any(map(runs, pids))
    assert not runs((place(copied, 11) / "stray.txt").read_text())


def test_warm_cell_has_the_environment_of_a_cold_one_and_gpus_of_its_own(
    warm_run, monkeypatch, tmp_path
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("WORLD_SIZE", "7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the locks of this test alone
    environments, pids = [], []
    for name, words in {"cold": (), "warm": ("--warm",)}.items():
        _, cells = warm_run(name, (1, 2), *words)
        for seed in (1, 2):
            text = (place(cells, seed) / "environment.json").read_text()
            environments.append(json.loads(text))
            pids.append(environments[-1].pop("GALD_LAUNCHER"))
            assert len(environments[-1].pop("GALD_ATTEMPT")) == 32
            environments[-1].pop("PWD", None)
    assert environments[:2] == environments[2:]
    assert {e["CUDA_VISIBLE_DEVICES"] for e in environments} == {"0", "1"}
    assert pids[0] == pids[1] == str(os.getpid()) and pids[2] == pids[3] != pids[0]


def test_what_the_imports_print_is_in_the_log_of_every_cell(warm_run, preload):
    preload("def preload():\n    print('a warning', flush=True)\n")
    _, cells = warm_run("warm", (1, 2), "--warm")
    for seed in (1, 2):
        assert (place(cells, seed) / "log.txt").read_text() == "a warning\n"


def test_a_cell_runs_the_code_that_there_is_at_its_start(warm_run, tmp_path, preload, monkeypatch):
    """The first cell changes a file that was imported; the next one has another parent."""
    code = tmp_path / "hydra_plugins" / "mine_too.py"  # counts as code of gald
    code.parent.mkdir()
    code.write_text("word = 'old'\n")
    preload(
        "from hydra_plugins import mine_too\ndef preload():\n    print(mine_too.word, flush=True)\n"
    )
    changing = tmp_path / "changing.py"
    changing.write_text(f"open({str(code)!r}, 'w').write('word = 123456')\n{FAKE.read_text()}")
    monkeypatch.setattr(cell_process, "ENTRY", [str(changing)])
    _, cells = warm_run("warm", (1, 2), "--jobs", "1", "--warm")
    assert [(place(cells, n) / "log.txt").read_text() for n in (1, 2)] == ["old\n", "123456\n"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    {
        "import threading, time\n"
        "preload = threading.Thread(target=time.sleep, args=(60,), daemon=True).start": (
            r"cannot be copied, because its imports have left 2 threads; .*"
            r"leave hydra\.launcher\.warm=true or --warm out"
        ),
        "def preload():\n    raise ImportError('no such library')": (
            r"ended with code 1 \(ImportError: no such library\); .*leave hydra\.launcher\.warm"
        ),
        "import os\n\ndef preload():\n    os.kill(os.getpid(), 9)": r"code -9 \(no output\)",
    }.items(),
    ids=["thread", "error", "killed"],
)
def test_what_cannot_be_copied_is_refused_in_one_sentence(warm_run, preload, source, sentence):
    preload(source)
    with pytest.raises(ValueError, match=sentence):
        warm_run("warm", (1,), "--warm")
    assert read_state(place(Sweep.load(Path("warm")), 1)).state == "pending"
    assert warm_run("warm", (1,))[0] == 0  # the cell belongs to nobody


def test_other_systems_and_single_cells_are_refused(sweep, monkeypatch):
    monkeypatch.setattr("gald.sweep.launch.warm.sys.platform", "darwin")
    with pytest.raises(ValueError, match=r"only Linux does safely, and this is darwin; .* out"):
        sweep("warm", "1", *SMALL, "hydra.launcher.warm=true")
    with pytest.raises(ValueError, match=r"hydra\.launcher\.warm=maybe: warm must be true or fal"):
        sweep("warm", "1", *SMALL, "hydra.launcher.warm=maybe")
    declare(Path("grid"), "grid", [], [["seed=1"]])
    monkeypatch.setattr(sys, "argv", ["gald", "sweep", "run", "grid", "--cell", "0", "--warm"])
    with pytest.raises(ValueError, match=r"--cell 0 is one; leave --warm out"):
        cli.main()


@pytest.fixture
def door(tmp_path):
    """Starts `gald sweep run --warm` on a cell that waits; ends it after the test."""
    sweep = Sweep.load(declared(tmp_path / "grid", [["seed=7"]]))
    with (tmp_path / "door.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", DOOR, "sweep", "run", "grid", "--warm"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
    folder = sweep.place(sweep.cells[0])
    wait_until(lambda: (folder / "ready").exists())
    yield process, folder
    process.kill()
    process.wait()
    for file in folder.glob("pids.txt"):
        for pid in file.read_text().split():
            if runs(pid):
                os.kill(int(pid), signal.SIGKILL)


def declared(folder, words):
    declare(folder, folder.name, ["gald", "train", "-m"], words)
    return folder


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75)])
def test_signal_lets_a_warm_cell_save_and_leaves_no_process(door, name, code):
    process, folder = door
    cell, child = (int(pid) for pid in (folder / "pids.txt").read_text().split())
    server = parent_of(cell)
    assert parent_of(server) == process.pid and os.getsid(cell) == cell != os.getsid(server)
    assert Path(f"/proc/{cell}/comm").read_text().strip() == folder.name[:15]
    os.killpg(process.pid, getattr(signal, name))  # as a terminal does: the whole group
    assert process.wait(timeout=60) == code
    assert read_state(folder).state == "pending"
    assert (folder / "checkpoints" / "last.ckpt").exists()
    wait_until(lambda: not any(map(runs, (cell, child, server))))


def test_another_process_takes_over_when_the_copied_one_is_killed(door, tmp_path):
    process, folder = door
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    first = int((folder / "pids.txt").read_text().split()[0])
    os.kill(parent_of(first), signal.SIGKILL)
    assert process.wait(timeout=60) == 0, (tmp_path / "door.log").read_text()
    assert (folder / "starts.txt").read_text() == "fresh None\nresumed None\n"
    assert not runs(first)


def test_the_copied_process_ends_with_a_killed_launcher(door):
    process, folder = door
    cell = int((folder / "pids.txt").read_text().split()[0])
    server = parent_of(cell)
    process.kill()
    process.wait()
    wait_until(lambda: not runs(server))


@pytest.mark.slow
def test_warm_cells_give_the_numbers_of_cold_ones_bit_by_bit(tmp_path):
    """One real sweep of each kind; every file with numbers is equal, and so are the weights."""
    command = [
        *(sys.executable, "-m", "gald", "train", "-m", "seed=0,1", "logger=csv", "report=false"),
        *("data.size=[48,64]", "data.train_transform.crop_size=[48,64]", "data.train_count=8"),
        *("data.val_count=3", "data.test_count=3", "data.global_batch_size=4"),
        *("data.num_workers=1", "model.channels=16", "model.backbone.name=test_resnet"),
        *("trainer.accelerator=cpu", "trainer.max_epochs=2", "hydra.launcher.jobs=1"),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    found = []
    for word in ("false", "true"):
        folder = tmp_path / word
        folder.mkdir()
        words = [*command, f"hydra.launcher.warm={word}"]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        sweep = Sweep.load(folder / "runs" / "train")
        for cell in sweep.cells:
            place = sweep.place(cell)
            results = json.loads((place / "results.json").read_text())
            receipts = [results.pop(f"{split}/receipt") for split in ("val", "test")]
            results["predictions"] = [receipt["predictions_sha256"] for receipt in receipts]
            results = {k: v for k, v in results.items() if k not in OF_A_RUN}
            weights = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)
            log = (place / "log.txt").read_text().replace(str(folder), "")
            files = [(place / name).read_bytes() for name in ("metrics.csv", "picture.png")]
            found.append((results, weights["state_dict"], log, files))
    for cold, copied in zip(found[:2], found[2:], strict=True):
        assert cold[0] == copied[0] and cold[3] == copied[3]
        assert cold[1].keys() == copied[1].keys()
        assert all(torch.equal(cold[1][key], copied[1][key]) for key in cold[1])
        assert re.sub(r"\d+(\.\d)? s\b", "", cold[2]) == re.sub(r"\d+(\.\d)? s\b", "", copied[2])


@pytest.mark.slow
def test_a_cell_imports_little_that_was_not_imported_for_it():
    """Each module that a cell imports itself is a cost of every cell of a warm sweep."""
    code = "from gald.sweep.launch.preload import preload; preload(); import sys; "
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert {"gald.training.train", "gald.scheduler", "gald.model.ga.cgnl"} <= modules
    heavy = {"tensorboard", "mlflow", "albumentations", "optuna", "IPython", "pandas", "sklearn"}
    assert not modules & heavy
    assert "gald.sweep.launch.cell" not in modules  # it becomes the main module of each cell


def test_the_launcher_asks_torch_for_gpus_only_where_there_may_be_one(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(devices, "DRIVERS", ("no-such-file*",))
    assert devices.visible_gpus() == []
    monkeypatch.setattr(devices, "DRIVERS", ("no-such-file*", "nul*"))
    with pytest.raises(ImportError):
        devices.visible_gpus()


@pytest.mark.integration
def test_quick_end_calls_what_others_registered_and_flushes_files(tmp_path):
    """As Python does; only objects are not freed one by one."""
    code = """
import atexit, sys, threading, time
from gald.sweep.launch.leave import leave_quickly

class Freed:
    def __del__(self):
        print("freed", file=sys.__stderr__)

kept = Freed()

def main():
    atexit.register(print, "called at the end")
    global file
    file = open(sys.argv[1], "w")
    file.write("kept")
    threading.Thread(target=lambda: (time.sleep(0.3), print("waited"))).start()
    if sys.argv[2] == "error":
        raise KeyError("lost")
    sys.exit(None if sys.argv[2] == "None" else int(sys.argv[2]))

leave_quickly(main)
"""
    for end, code_of_it in {"None": 0, "0": 0, "75": 75, "256": 0, "-1": 255, "error": 1}.items():
        file = tmp_path / end
        command = [sys.executable, "-c", code, file, end]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, file.read_text()) == (code_of_it, "kept")
        assert done.stdout == "waited\ncalled at the end\n"
        assert ("KeyError: 'lost'" in done.stderr) == (end == "error") == ("freed" in done.stderr)
