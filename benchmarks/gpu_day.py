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
from functools import partial
from pathlib import Path
from typing import Any

import gpu_speed
import torch
from gpu_page import gpu_page

from gald.run.provenance import commit, versions
from gald.run.results import read_results
from gald.sweep.manifest import NAME as MANIFEST
from gald.sweep.manifest import Manifest, split_overrides

SWEEP = "gpu_day"
ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"works": 60, "speed": 150, "result": 240}
ARMS = [  # overrides of one sweep command each: none/none, psp/*, nonlocal/*
    ["model/ga=none", "model/ld=none"],
    ["model/ga=psp", "model/ld=none,mask,affinity"],
    ["model/ga=nonlocal", "model/ld=none,affinity"],
]
SIDE_BY_SIDE = (6, 12)  # cells that share the GPU: tried in turn, to see how many pay
SCORES = [f"{s}/{name}" for s in ("val", "test") for name in ("miou", "boundary_iou/0.02")]
SEEDS = 2  # paired seeds of one round


class Report:
    """The results so far; every change is written to the JSON file and to the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "gpu_day.json"
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def save(self, part: str, name: str, value: Any) -> None:
        """Store a result of a part."""
        self.content.setdefault(part, {})[name] = value
        path = self.folder / "gpu_day.json"
        partial_file = path.with_suffix(".part")
        partial_file.write_text(json.dumps(self.content, indent=1))
        partial_file.replace(path)
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
    about |= {"commit": commit() or os.environ.get("GALD_COMMIT"), **versions()}
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
    rounds = []
    while left() > (10 if toy else 60) and len(rounds) < (1 if toy else 8):
        start = time.monotonic()
        number = len(rounds)
        jobs = 1 if toy else SIDE_BY_SIDE[number % len(SIDE_BY_SIDE)]
        before = len(_finished(folder / "runs" / SWEEP))
        for arm in ARMS[:1] if toy else ARMS:
            if left() > 5:
                _sweep(_words(arm, number, jobs, toy, camvid), folder, left())
        cells = len(_finished(folder / "runs" / SWEEP)) - before
        minutes = (time.monotonic() - start) / 60
        row = {"cells side by side": jobs, "cells": cells, "cells per minute": cells / minutes}
        rounds.append(row)
        save("rounds", rounds)
        scores = _scores(folder / "runs" / SWEEP)
        save("scores", scores)
        if cells == 0:
            break


def _words(arm: list[str], number: int, jobs: int, toy: bool, camvid: Path | None) -> list[str]:
    seeds = [number * SEEDS + i for i in range(1 if toy else SEEDS)]
    words = [*arm, "seed=" + ",".join(map(str, seeds)), "logger=csv"]
    words += ["callbacks=[checkpoint,learning_rate,progress]", f"hydra.launcher.jobs={jobs}"]
    if toy:
        tiny = ["model.backbone.name=test_resnet", "model.channels=16", "data.train_count=8"]
        tiny += ["data.val_count=2", "data.test_count=2", "trainer.max_epochs=1", "metrics=miou"]
        return [*words, *tiny, "data.num_workers=0", "trainer.accelerator=cpu"]
    words += ["experiment=camvid_lite0", f"data.root={camvid}", "trainer=gpu"]
    words += ["trainer.max_epochs=60", "trainer.check_val_every_n_epoch=10", "data.num_workers=1"]
    return [*words, f"hydra.launcher.jobs_per_gpu={jobs}"]


def _sweep(words: list[str], folder: Path, seconds: float) -> None:
    """Run a sweep, and stop it when its time is up; its finished cells remain."""
    command = [sys.executable, "-m", "gald.train", "-m", *words, f"name={SWEEP}"]
    # Six and more cells share the cores with their loaders.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "sweep.log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _finished(sweep: Path) -> dict[Path, str]:
    """Return the folders of the finished cells, and their GA and LD."""
    if not (sweep / MANIFEST).is_file():
        return {}
    arms = {}
    for cell in Manifest.load(sweep).cells.values():
        values = split_overrides(cell.overrides)
        if cell.state == "done":
            arms[sweep / cell.folder] = f"{values['model/ga']}/{values['model/ld']}"
    return arms


def _scores(sweep: Path) -> list[dict[str, Any]]:
    rows = []
    for run, arm in _finished(sweep).items():
        results = read_results(run / "results.json")
        scores = {key: results[key] for key in SCORES if key in results}
        rows.append({"arm": arm, "seed": results["seed"], **scores, "seconds": results["seconds"]})
    return sorted(rows, key=lambda row: (row["arm"], row["seed"]))


def _pack(sweep: Path, folder: Path) -> None:
    """Pack results and counts of all cells, and the weights of the two best, to take them along."""
    with tarfile.open(folder / "cells.tar.gz", "w:gz") as archive:
        for path in sorted(sweep.rglob("*")):
            kept = path.name in ("results.json", "config.yaml", "metrics.csv", MANIFEST)
            if kept or path.suffix == ".npz":
                archive.add(path, path.relative_to(sweep.parent))
    best = sorted(
        _finished(sweep),
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
    scratch = Path(tempfile.mkdtemp(prefix="gald_gpu_day_"))
    report.save("machine", ", ".join(args.parts), machine())
    for part in args.parts:
        start = time.monotonic()
        end = start + SECONDS[part]

        def left(end: float = end) -> float:
            return end - time.monotonic()

        save = partial(report.save, part)
        try:
            if part == "works":
                works(left, save, args.toy, scratch)
            elif part == "speed":
                gpu_speed.measure(args.toy, scratch, left, save)
            else:
                result(left, save, args.toy, camvid, scratch)
                _pack(scratch / "runs" / SWEEP, folder)
        except Exception as error:
            save("error", f"{type(error).__name__}: {error}"[:2000])
        save("seconds", round(time.monotonic() - start, 1))
        print(f"{part}: {time.monotonic() - start:.0f} s, see {folder / 'gpu_day.md'}", flush=True)


if __name__ == "__main__":
    main()
