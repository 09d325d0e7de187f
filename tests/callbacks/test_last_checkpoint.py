"""A run that stops within an epoch resumes to the weights of an uninterrupted run."""

import os
import signal
import subprocess
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
    "report=false",
]


@pytest.fixture
def train(monkeypatch):
    """Return a function that trains in this process and raises errors."""

    def call(folder, *overrides):
        monkeypatch.setattr(
            sys, "argv", ["gald", "train", *TINY, f"output_dir={folder}", *overrides]
        )
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()

    return call


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gald", "train", *TINY, f"output_dir={folder}"])
        patch.setenv("GALD_TRACEBACK", "1")
        cli.main()
    return folder


def interrupt(patch, step, action):
    """Call `action` within the training step after so many optimizer steps."""
    original = SegmentationTask.training_step

    done = []

    def training_step(self, batch, batch_idx):
        if self.global_step == step and not done:
            done.append(step)
            action()
        return original(self, batch, batch_idx)

    patch.setattr(SegmentationTask, "training_step", training_step)


def assert_same_run(folder, expected):
    resumed, reference = (
        read_checkpoint(path / "checkpoints" / "last.ckpt").content for path in (folder, expected)
    )
    for key, value in reference["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key
    assert resumed["lr_schedulers"] == reference["lr_schedulers"]
    assert (folder / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()


@pytest.mark.integration
@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 75), pytest.param("SIGUSR1", 75, marks=pytest.mark.slow), ("SIGINT", 130)],
)
def test_signal_saves_within_the_epoch_and_prints_the_command_for_resuming(
    train, uninterrupted, tmp_path, monkeypatch, capsys, name, code
):
    with monkeypatch.context() as patch:
        interrupt(patch, 5, lambda: os.kill(os.getpid(), getattr(signal, name)))
        with pytest.raises(SystemExit) as end:
            train(tmp_path / "run")
    assert end.value.code == code
    out = capsys.readouterr().out
    assert ("press Ctrl-C again to end at once" in out) == (name == "SIGINT")
    assert f"stopped by {name} at step 6; resume with: gald train data=synthetic " in out
    assert f" output_dir={tmp_path / 'run'} ckpt_path=last\n" in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").content
    assert saved["global_step"] == 6 and saved["epoch"] == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(tmp_path / "run", "ckpt_path=last")
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_second_interrupt_ends_the_process_at_once(tmp_path):
    program = (
        "import os, signal; from gald.task import SegmentationTask as T\n"
        "def step(self, *a):\n"
        "    os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)\n"
        "T.training_step = step\n"
        "from gald import cli; cli.main()"
    )
    words = ["train", *TINY, f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "press Ctrl-C again to end at once" in done.stdout
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.integration
def test_run_that_dies_loses_only_the_time_since_its_last_save(
    train, uninterrupted, tmp_path, monkeypatch
):
    def power_cut():
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        interrupt(patch, 6, power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "run", "callbacks.last.minutes=0")
    folder = tmp_path / "run" / "checkpoints"
    assert read_checkpoint(folder / "last.ckpt").content["global_step"] == 6
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    train(tmp_path / "run", "ckpt_path=last")
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.integration
def test_nothing_is_saved_within_accumulated_gradients(train, tmp_path, monkeypatch):
    from gald.callbacks.last_checkpoint import LastCheckpoint

    saved_after = []
    original = LastCheckpoint._save

    def save(self, trainer):
        saved_after.append(trainer.fit_loop.epoch_loop.batch_progress.current.ready)
        original(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "_save", save)
    train(tmp_path / "run", "callbacks.last.minutes=0", "trainer.max_epochs=1")
    # Eight micro-batches, two per step; the last save is after the validation.
    assert saved_after == [2, 4, 6, 8]
