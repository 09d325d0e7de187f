"""A run that is killed at any point and started again ends as if it had not been killed."""

import json
import random
import shutil
from pathlib import Path

import killed
import pytest
import torch

from gald.run.checkpoint import read_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "survival.md"
TINY = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=6",
    "data.val_count=2",
    "data.test_count=2",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "metrics=miou",
    "callbacks=[checkpoint,progress]",
    "callbacks.last.minutes=0",
]
AFRESH, RESUMED, REPEATED = "starts from the beginning", "resumes", "evaluates again"
TASK = "gald.task:SegmentationTask"
EVALUATION = "gald.evaluation.task:EvaluationTask"
# Where the process is killed, how in the tests, and what the repeated command does.
KILLS = {
    "while the data is set up": (("call", "gald.training.train:build_task", 1), AFRESH),
    "before `config.yaml` is there": (("before", "config.yaml", 1), AFRESH),
    "in the first validation": (("call", f"{TASK}.validation_step", 1), RESUMED),
    "while the first `last.ckpt` is written": (("in", "last.ckpt", 1), AFRESH),
    "before the first `last.ckpt` has its name": (("before", "last.ckpt", 1), AFRESH),
    "just after a save within an epoch": (("after", "last.ckpt", 2), RESUMED),
    "in a training step": (("call", f"{TASK}.training_step", 5), RESUMED),
    "while `best.ckpt` is written": (("in", "best.ckpt", 1), RESUMED),
    "while a later `last.ckpt` is written": (("in", "last.ckpt", 4), RESUMED),
    "while `metrics.csv` is written": (("in", "metrics.csv", 3), RESUMED),
    "just after `metrics.csv` is written": (("after", "metrics.csv", 4), RESUMED),
    "in a later validation": (("call", f"{TASK}.validation_step", 2), RESUMED),
    "in the evaluation": (
        ("call", "gald.evaluation.task:EvaluationTask.validation_step", 3),
        REPEATED,
    ),
    "while `images_val.npz` is written": (("in", "images_val.npz", 1), REPEATED),
    "between the splits of the evaluation": (("after", "results.json", 1), REPEATED),
    "while `results.json` is written": (("in", "results.json", 2), REPEATED),
    "in the picture": (("in", "picture.png", 1), REPEATED),
    "in the report": (("call", "gald.report.training:write_report", 1), REPEATED),
}
FILES = ("config.yaml", "metrics.csv", "best.ckpt", "last.ckpt", "images_val.npz")
FILES += ("images_test.npz", "results.json", "picture.png")
POINTS = [(when, file, 1) for file in FILES for when in ("before", "in", "after")]
POINTS += [(when, "last.ckpt", n) for n in (3, 5) for when in ("before", "after")]
POINTS += [(when, "metrics.csv", n) for n in (2, 6) for when in ("before", "after")]
NEITHER = ("seconds", "command", "checkpoint_sha256")  # a time, and what names the kill


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not killed, and the folder in which all others run."""
    folder = tmp_path_factory.mktemp("kills")
    assert train(folder) == 0, (folder / "log").read_text()
    (folder / "run").rename(folder / "whole")
    return folder


def train(folder, point=None, *more, after=None):
    words = ["train", *TINY, f"output_dir={folder / 'run'}", *more]
    return killed.run(words, point, folder / "log", after)


def assert_equal_to_an_undisturbed_run(folder):
    run, whole = folder / "run", folder / "whole"
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = (
            read_checkpoint(path / "checkpoints" / name).content for path in (run, whole)
        )
        assert_same(ours, theirs, name)
    for name in ("metrics.csv", "config.yaml", "images_val.npz", "images_test.npz", "picture.png"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = (json.loads((path / "results.json").read_text()) for path in (run, whole))
    assert without_times(ours) == without_times(theirs)
    assert tree(run) == tree(whole), "something is left behind"


def assert_same(ours, theirs, where):
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}/{index}")
    elif "/loops/" not in where and not where.endswith("ckpt/seconds"):  # restarts, a time
        assert ours == theirs, where


def without_times(results):
    return {
        key: without_times(value) if isinstance(value, dict) else value
        for key, value in results.items()
        if key not in NEITHER
    }


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def assert_survives(folder, point, end=None, after=None):
    shutil.rmtree(folder / "run", ignore_errors=True)
    code = train(folder, point, after=after)
    log = (folder / "log").read_text()
    assert code == -9 or (point is None and code == 0), log
    last = (folder / "run" / "checkpoints" / "last.ckpt").is_file()
    if end is not None:
        assert last == (end != AFRESH)
    more = ["ckpt_path=last"] if (folder / "run").exists() else []
    assert train(folder, None, *more) == 0, (folder / "log").read_text()
    assert_equal_to_an_undisturbed_run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", KILLS)
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been_killed(where, whole):
    assert_survives(whole, *KILLS[where])


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_a_file_ends_as_if_it_had_not_been_killed(point, whole):
    assert_survives(whole, point)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_run_killed_at_random_ends_as_if_it_had_not_been_killed(seed, whole):
    assert_survives(whole, None, after=random.Random(seed).uniform(0.5, 6))


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been_killed(whole):
    shutil.rmtree(whole / "run", ignore_errors=True)
    more = []
    for point, _ in KILLS.values():
        assert train(whole, point, *more) in (0, -9), (whole / "log").read_text()
        more = ["ckpt_path=last"]
    assert train(whole, None, *more) == 0, (whole / "log").read_text()
    assert_equal_to_an_undisturbed_run(whole)


def test_page_lists_every_kill():
    rows = [f"| {where} | {end} |" for where, (_, end) in KILLS.items()]
    assert "\n".join(rows) in PAGE.read_text()
