"""A run that ends within an epoch, in whatever way, goes on to the weights it would have had."""

import os
import signal
import sys

import pytest
import torch

from gald import cli
from gald.run.checkpoint import read_checkpoint
from gald.task import SegmentationTask

TINY = [
    "data=synthetic",
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=16",
    "data.val_count=3",
    "data.global_batch_size=4",
    "data.micro_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "metrics=miou",
    "test=false",
    "logger=csv",
]


@pytest.fixture
def train(monkeypatch):
    """Trains in this process; an error is raised, not worded."""

    def call(folder, *overrides):
        monkeypatch.setattr(
            sys, "argv", ["gald", "train", *TINY, f"output_dir={folder}", *overrides]
        )
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gald", "train", *TINY, f"output_dir={folder}"])
        patch.setenv("GALD_TRACEBACK", "1")
        cli.main()
    return folder


def disturb(patch, step, action):
    """Make training meet `action` within a forward pass of its second epoch."""
    original = SegmentationTask.training_step

    def disturbed(self, batch, batch_idx):
        if self.global_step == step:
            action()
        return original(self, batch, batch_idx)

    patch.setattr(SegmentationTask, "training_step", disturbed)


def assert_same_run(folder, whole):
    ours, theirs = (
        read_checkpoint(path / "checkpoints" / "last.ckpt").content for path in (folder, whole)
    )
    for key, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value), key
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_within_the_epoch_and_exits_as_pending(
    train, whole, tmp_path, monkeypatch, capsys, name
):
    with monkeypatch.context() as patch:
        disturb(patch, 5, lambda: os.kill(os.getpid(), getattr(signal, name)))
        with pytest.raises(SystemExit) as end:
            train(tmp_path / "run")
    assert end.value.code == 75
    assert f"stopped by {name} at step 6; resume with ckpt_path=last" in capsys.readouterr().out
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").content
    assert saved["global_step"] == 6 and saved["epoch"] == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(tmp_path / "run", "ckpt_path=last")
    assert_same_run(tmp_path / "run", whole)


def test_a_run_that_dies_loses_no_more_than_the_minutes_between_two_saves(
    train, whole, tmp_path, monkeypatch
):
    def power_cut():
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        disturb(patch, 6, power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "run", "callbacks.last.minutes=0")
    folder = tmp_path / "run" / "checkpoints"
    assert read_checkpoint(folder / "last.ckpt").content["global_step"] == 6
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    train(tmp_path / "run", "ckpt_path=last")
    assert_same_run(tmp_path / "run", whole)


def test_nothing_is_saved_within_accumulated_gradients(train, tmp_path, monkeypatch):
    from gald.callbacks.last_checkpoint import LastCheckpoint

    seen = []
    original = LastCheckpoint._save

    def noted(self, trainer):
        seen.append(trainer.fit_loop.epoch_loop.batch_progress.current.ready)
        original(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "_save", noted)
    train(tmp_path / "run", "callbacks.last.minutes=0", "trainer.max_epochs=1")
    assert seen == [2, 4, 6, 8]  # eight micro-batches, two a step; the last after the validation
