"""Fast convolutions, banded loss and compilation together with everything else of a training."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from gald.run.checkpoint import read_checkpoint
from gald.run.compiled import check_compiler
from gald.task import SegmentationTask

TINY = [
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=24",
    "data.val_count=2",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model/ga=none",
    "model/ld=none",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "test=false",
    "scheduler.warmup_steps=0",
]
RESNET = [*TINY, "model.backbone.name=test_resnet"]
MOBILE = [*TINY, "model.backbone.name=test_efficientnet", "model.backbone.grad_checkpointing=true"]
MOBILE += ["model.backbone.output_stride=16", "loss=ohem", "loss.main.min_kept=500"]
MOBILE += ["data.micro_batch_size=1", "callbacks=[checkpoint,progress,ema]"]


def last(folder):
    return read_checkpoint(folder / "checkpoints" / "last.ckpt").content


def assert_same_states(folder, expected):
    one, other = last(folder), last(expected)
    for part in ("state_dict", "current_model_state"):
        assert one.get(part, {}).keys() == other.get(part, {}).keys()
        for key, value in one.get(part, {}).items():
            assert torch.equal(value, other[part][key]), f"{part}.{key}"


@pytest.fixture
def train(gald_cli, tmp_path, monkeypatch):
    """Return a function that trains; with `stop`, a power cut ends the training in epoch 1."""

    def power_cut(self):
        if self.trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    def run(name, *words, stop=False):
        folder = tmp_path / name
        with monkeypatch.context() as patch:
            if stop:
                patch.setattr(SegmentationTask, "on_train_epoch_start", power_cut)
                with pytest.raises(RuntimeError, match="power cut"):
                    gald_cli("train", *words, f"output_dir={folder}")
            else:
                gald_cli("train", *words, f"output_dir={folder}")
        return folder

    return run


@pytest.mark.slow
def test_compiled_runs_have_the_checkpoints_of_others_and_resume_either_way(train, monkeypatch):
    """The backend "eager" traces the network as the compiler does, and rounds as PyTorch."""
    calls = []
    own = torch.compile

    def compile(function, **options):
        compiled = own(function, backend="eager", **options)
        calls.append(function.__name__)
        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    words = [*RESNET, "callbacks=[checkpoint,progress,ema]"]
    plain = train("plain", *words)
    assert not calls
    train("there", *words, "trainer.compile=true", stop=True)
    assert calls == ["_trial", "forward"]
    there = train("there", *words, "trainer.compile=false", "ckpt_path=last")
    assert_same_states(there, plain)
    train("back", *words, stop=True)
    back = train("back", *words, "trainer.compile=true", "ckpt_path=last")
    assert_same_states(back, plain)
    assert not [key for key in last(back)["state_dict"] if "_orig_mod" in key]
    assert (back / "metrics.csv").read_text() == (plain / "metrics.csv").read_text()


def test_a_machine_without_a_compiler_is_told_so_in_one_sentence(monkeypatch):
    def compile(function):
        def call(x):
            raise RuntimeError("No working C++ compiler found")

        return call

    monkeypatch.setattr(torch, "compile", compile)
    sentence = r"compile for cpu here \(RuntimeError: No working C\+\+ .*; install a C\+\+ compiler"
    with pytest.raises(ValueError, match=sentence):
        check_compiler(torch.device("cpu"))


def test_compile_is_refused_where_nothing_is_trained(trained, gald_cli, tmp_path):
    words = [f"ckpt_path={trained()}", "trainer.compile=true", f"output_dir={tmp_path / 'eval'}"]
    with pytest.raises(ValueError, match=r"trainer\.compile=true has no effect on an evaluation"):
        gald_cli("eval", *words)


@pytest.mark.slow
@pytest.mark.parametrize("words", [RESNET, [*MOBILE, "trainer.precision=bf16-mixed"]])
def test_a_compiled_training_on_a_cpu_differs_by_rounding(train, words):
    words = [*words, "trainer.max_epochs=1"]
    plain, compiled = train("plain", *words), train("compiled", *words, "trainer.compile=true")
    assert last(plain)["state_dict"].keys() == last(compiled)["state_dict"].keys()
    losses = []
    for run in (plain, compiled):
        with (run / "metrics.csv").open() as file:
            losses.append(
                [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
            )
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.slow
def test_a_stopped_run_with_every_fast_path_resumes_to_the_unbroken_one(train):
    unbroken = train("unbroken", *MOBILE)
    train("stopped", *MOBILE, stop=True)
    assert_same_states(train("stopped", *MOBILE, "ckpt_path=last"), unbroken)
    slow = ["model.fast_depthwise=false", "model.channels_last=false"]
    other = last(train("slow", *MOBILE, *slow, "trainer.max_epochs=1"))["state_dict"]
    assert other.keys() == last(unbroken)["state_dict"].keys()


PATCH = """
import os, signal, sys
if "GALD_STOP" in os.environ and any("gald" in word for word in sys.argv):
    from gald.task import SegmentationTask as Task
    own = Task.training_step
    def training_step(self, *batch):
        if self.global_step == 2 and self.global_rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(self, *batch)
    Task.training_step = training_step
"""


@pytest.mark.slow
def test_two_processes_stop_together_one_step_later_and_resume(tmp_path):
    """A signal to one of them in the third step lets both finish the fourth."""
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def run(name, *words, **environment):
        command = [sys.executable, "-m", "gald", "train", *MOBILE, "trainer=ddp_cpu"]
        command += [f"output_dir={tmp_path / name}", "trainer.max_epochs=2", *words]
        environment = {**os.environ, "PYTHONPATH": path, **environment}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    unbroken = run("unbroken")
    assert unbroken.returncode == 0, unbroken.stderr
    stopped = run("stopped", GALD_STOP="1")
    assert stopped.returncode == 75, stopped.stderr
    assert last(tmp_path / "stopped")["global_step"] == 4
    resumed = run("stopped", "ckpt_path=last")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_states(tmp_path / "stopped", tmp_path / "unbroken")
