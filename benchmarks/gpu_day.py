"""Ten minutes on a GPU: does everything work, how fast is it, and one result on CamVid.

    make gpu-day ARGS="--out FOLDER --camvid FOLDER"
    python benchmarks/gpu_day.py --out FOLDER --parts works speed
    python benchmarks/gpu_day.py --out FOLDER --toy

The parts run in this order, each within its own time: `works` runs the tests marked `gpu`, `speed`
times training, loading and evaluation, `result` trains six arms on CamVid with as many paired seeds
as fit. After every measurement FOLDER/gpu_day.json and the page FOLDER/gpu_day.md are written, so a
visit that is cut off keeps what it has measured. `--toy` runs the same code at a tiny size, also on
a CPU.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gpu_speed
import torch
from gpu_page import gpu_page

from gald.run.atomic import atomic_file
from gald.run.provenance import commit, versions
from gald.run.results import read_results
from gald.sweep.cells import NAME as CELLS
from gald.sweep.cells import Sweep, split_overrides
from gald.sweep.state import read_state

SWEEP = "gpu_day"
ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"works": 90, "speed": 150, "result": 300}
# The arms are no full product of GA and LD, so each GA is a sweep; all sweeps run at once.
ARMS = {"none": ["none"], "psp": ["none", "mask", "affinity"], "nonlocal": ["none", "affinity"]}
ROUNDS = (1, 2)  # seeds of the first rounds: 6 and 12 cells share the GPU, to see how many pay
SCORES = [f"{s}/{name}" for s in ("val", "test") for name in ("miou", "boundary_iou/0.02")]


class Report:
    """The results so far; every change is written to the JSON file and to the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "gpu_day.json"
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def save(self, part: str, name: str, value: Any) -> None:
        """Store a result of a part."""
        self.content.setdefault(part, {})[name] = value
        with atomic_file(self.folder / "gpu_day.json") as path:
            path.write_text(json.dumps(self.content, indent=1))
        (self.folder / "gpu_day.md").write_text(gpu_page(self.content))


def machine() -> dict[str, Any]:
    """Describe the machine, the software and the command."""
    about: dict[str, Any] = {"cpu cores": os.cpu_count(), "python": platform.python_version()}
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
        about["cuda"] = torch.version.cuda
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        if shutil.which(query[0]):
            about["driver, memory"] = subprocess.check_output(query, text=True).strip()
    about |= {"commit": os.environ.get("GALD_COMMIT") or commit(), **versions()}
    return about | {"command": " ".join(["python", *sys.argv])}


def works(
    left: Callable[[], float], save: Callable[[str, Any], None], toy: bool, folder: Path
) -> None:
    """Run the tests marked `gpu`; on a toy visit only one of them."""
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider"]
    # A warning of another version of a library must not fail a test here.
    command += ["-o", "filterwarnings=default", "--tb=short", "--show-capture=no", "tests/gpu"]
    if toy:
        command += ["-k", "last_digit"]
    log = folder / "tests.log"
    with log.open("w") as file:
        try:
            subprocess.run(
                command, cwd=ROOT, timeout=max(10, left()), stdout=file, stderr=file, check=False
            )
        except subprocess.TimeoutExpired as error:
            save("stopped after, s", error.timeout)
    text = log.read_text()
    rows = [
        {"test": match[1], "end": match[2].lower()}
        for match in re.finditer(r"::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", text)
    ]
    save("tests", rows)
    if not rows or any(row["end"] in ("failed", "error") for row in rows):
        save("output", text[-6000:])


def result(
    left: Callable[[], float],
    save: Callable[[str, Any], None],
    toy: bool,
    camvid: Path | None,
    folder: Path,
) -> None:
    """Train the arms by sweeps, one round of paired seeds after the other, until the time is up."""
    if camvid is None and not toy:
        save("skipped", "no --camvid FOLDER was given")
        return
    runs = folder / "runs"
    rounds: list[dict[str, Any]] = []
    first = 0
    while left() > (10 if toy else 60) and len(rounds) < (1 if toy else 8):
        count = 1 if toy else _seeds_of_next_round(rounds)
        seeds = range(first, first + count)
        first += count
        start, before = time.monotonic(), len(_finished(runs))
        arms = {"none": ARMS["none"]} if toy else ARMS
        _sweeps({ga: _words(ga, lds, seeds, toy, camvid) for ga, lds in arms.items()}, folder, left)
        cells = len(_finished(runs)) - before
        minutes = (time.monotonic() - start) / 60
        side_by_side = count * sum(map(len, arms.values()))
        rounds.append(
            {
                "seeds": list(seeds),
                "cells side by side": side_by_side,
                "finished": cells,
                "cells per minute": cells / minutes,
            }
        )
        save("rounds", rounds)
        save("scores", _scores(runs))
        if cells == 0:
            save("output", "".join(path.read_text()[-2000:] for path in folder.glob("*.log")))
            break


def _seeds_of_next_round(rounds: list[dict[str, Any]]) -> int:
    if len(rounds) < len(ROUNDS):
        return ROUNDS[len(rounds)]
    best = max(rounds, key=lambda row: row["cells per minute"])
    return len(best["seeds"])


def _words(ga: str, lds: list[str], seeds: range, toy: bool, camvid: Path | None) -> list[str]:
    jobs = len(lds) * len(seeds)
    words = [f"model/ga={ga}", f"model/ld={','.join(lds)}", f"name={SWEEP}_{ga}", "logger=csv"]
    words += ["seed=" + ",".join(map(str, seeds)), f"hydra.launcher.jobs={jobs}"]
    words += ["callbacks=[checkpoint,learning_rate,progress]"]
    if toy:
        tiny = ["model.backbone.name=test_resnet", "model.channels=16", "data.train_count=8"]
        tiny += ["data.val_count=2", "data.test_count=2", "trainer.max_epochs=1", "metrics=miou"]
        return [*words, *tiny, "data.num_workers=0", "trainer.accelerator=cpu"]
    words += ["experiment=camvid_lite0", f"data.root={camvid}", "trainer=gpu"]
    words += ["trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10", "data.num_workers=2"]
    words += ["model.channels_last=true"]
    places = len(seeds) * sum(map(len, ARMS.values()))  # all launchers share the GPU
    return [*words, f"hydra.launcher.jobs_per_gpu={places}"]


def _sweeps(commands: dict[str, list[str]], folder: Path, left: Callable[[], float]) -> None:
    """Run sweeps side by side, and stop them when the time is up; finished cells remain."""
    # Many cells share the cores with their loaders.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = []
    for name, words in commands.items():
        with (folder / f"{name}.log").open("a") as log:
            command = [sys.executable, "-m", "gald", "train", "-m", *words]
            running.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(1, left()))
    late = [process for process in running if process.poll() is None]
    for process in late:
        os.killpg(process.pid, signal.SIGTERM)
    for process in late:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _finished(runs: Path) -> dict[Path, str]:
    """Return the folders of the finished cells, and their GA and LD."""
    arms = {}
    for sweep in sorted(runs.glob(f"{SWEEP}_*")):
        if not (sweep / CELLS).is_file():
            continue
        for cell in Sweep.load(sweep).cells:
            values = split_overrides(cell.overrides)
            if read_state(sweep / cell.folder).state == "done":
                arms[sweep / cell.folder] = f"{values['model/ga']}/{values['model/ld']}"
    return arms


def _scores(runs: Path) -> list[dict[str, Any]]:
    rows = []
    for run, arm in _finished(runs).items():
        results = read_results(run / "results.json")
        scores = {key: results[key] for key in SCORES if key in results}
        rows.append({"arm": arm, "seed": results["seed"], **scores, "seconds": results["seconds"]})
    return sorted(rows, key=lambda row: (row["arm"], row["seed"]))


def _pack(runs: Path, folder: Path) -> None:
    """Pack results and counts of all cells, and the weights of the two best, to take them along."""
    with tarfile.open(folder / "cells.tar.gz", "w:gz") as archive:
        for path in sorted(runs.rglob("*")):
            kept = path.name in ("results.json", "config.yaml", "metrics.csv", CELLS)
            if kept or path.suffix == ".npz":
                archive.add(path, path.relative_to(runs))
    best = sorted(
        _finished(runs),
        key=lambda run: -(read_results(run / "results.json")["val/miou"] or 0),
    )
    for rank, run in enumerate(best[:2], 1):
        checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        kept = {key: checkpoint[key] for key in ("state_dict", "gald")}
        torch.save(kept, folder / f"best_{rank}.ckpt")


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--camvid", type=Path, help="folder of CamVid, for the part result")
    parser.add_argument("--toy", action="store_true", help="a tiny size, also on a CPU")
    args = parser.parse_args()
    folder = args.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not args.toy and not torch.cuda.is_available():
        parser.error("there is no GPU; --toy runs the same parts at a tiny size on a CPU")
    camvid = args.camvid.absolute() if args.camvid else None
    report = Report(folder)
    report.save("machine", ", ".join(args.parts), machine())
    with tempfile.TemporaryDirectory(prefix="gald_gpu_day_") as scratch:
        for part in args.parts:
            _run(part, report, args.toy, camvid, Path(scratch))


def _run(part: str, report: Report, toy: bool, camvid: Path | None, scratch: Path) -> None:
    """Run a part within its time; an error is stored as its result."""
    start = time.monotonic()

    def left() -> float:
        return start + SECONDS[part] - time.monotonic()

    save = partial(report.save, part)
    try:
        if part == "works":
            works(left, save, toy, scratch)
        elif part == "speed":
            gpu_speed.measure(toy, scratch, left, save)
        else:
            result(left, save, toy, camvid, scratch)
            _pack(scratch / "runs", report.folder)
    except Exception as error:
        save("error", f"{type(error).__name__}: {error}"[:2000])
    seconds = round(time.monotonic() - start, 1)
    save("seconds", seconds)
    print(f"{part}: {seconds:.0f} s, see {report.folder / 'gpu_day.md'}", flush=True)


if __name__ == "__main__":
    main()
