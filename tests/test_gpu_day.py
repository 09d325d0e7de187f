"""`make gpu-day` at toy size, so that the minutes on a GPU are not spent on mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "benchmarks" / "gpu_day.py")]


def start(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONSAFEPATH", None)  # the script imports files beside it
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )


def errors(content, place=""):
    if isinstance(content, dict):
        if "error" in content:
            yield f"{place}: {content['error']}"
        for key, value in content.items():
            yield from errors(value, f"{place}/{key}")
    elif isinstance(content, list):
        for value in content:
            yield from errors(value, place)


@pytest.mark.slow
def test_toy_visit_measures_every_part(tmp_path):
    done = start("--toy", "--out", "visit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads((tmp_path / "visit" / "gpu_day.json").read_text())
    assert list(content) == ["machine", "works", "speed", "result"]
    assert not list(errors(content))
    assert [row["end"] for row in content["works"]["tests"]] == ["passed"]
    speed = content["speed"]
    assert {"ceilings", "steps", "overhead", "loader", "evaluation", "largest batch"} < set(speed)
    assert all(0 < row["MFU"] < 1 for row in speed["steps"])
    assert len(speed["overhead"]["top ten, ms per step"]) == 10
    (score,) = content["result"]["scores"]
    assert score["arm"] == "none/none" and 0 <= score["test/miou"] <= 1
    page = (tmp_path / "visit" / "gpu_day.md").read_text()
    assert "| network | options | batch |" in page and "- ratio: " in page
    files = {path.name for path in (tmp_path / "visit").iterdir()}
    assert files == {"gpu_day.json", "gpu_day.md", "cells.tar.gz", "best_1.ckpt"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_toy_is_named(tmp_path):
    done = start("--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no GPU; --toy runs the same parts" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camvid", "nowhere"], "no folder nowhere; add --camvid FOLDER"),
        (["--wrong"], "unknown option --wrong; it accepts --camvid FOLDER and --dry-run"),
    ],
)
def test_wrong_arguments_of_carry_are_one_sentence(arguments, message):
    command = ["bash", str(ROOT / "benchmarks" / "carry.sh"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"carry.sh: {message}\n"
