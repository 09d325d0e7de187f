"""A resumed run is the run that its command describes, or is refused in one sentence."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from gald import cli
from gald.config import compose
from gald.data.synthetic import SyntheticStreets
from gald.run.checkpoint import read_checkpoint
from gald.run.resume import changed_options, check_resume
from gald.task import SegmentationTask

PAGE = Path(__file__).parents[1] / "docs" / "resume.md"
TINY = [
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=12",
    "data.val_count=3",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "test=false",
    "callbacks=[checkpoint,progress]",
]
EQUAL, REFUSED, LONGER = "equal", "refused", "rescheduled"
CHANGES = {  # one option each, and what a resumption with it is
    "data.num_workers=1": EQUAL,
    "data.eval_batch_size=2": EQUAL,
    "data.cache=ram": EQUAL,
    "trainer.log_every_n_steps=1": EQUAL,
    "logger=tensorboard": EQUAL,
    "callbacks=[checkpoint,learning_rate,progress]": EQUAL,
    "trainer.max_epochs=4": LONGER,
    "trainer.max_epochs=2": REFUSED,
    "optimizer.lr=0.001": REFUSED,
    "optimizer.weight_decay=0": REFUSED,
    "optimizer.momentum=0.5": REFUSED,
    "optimizer=adamw": REFUSED,
    "scheduler=cosine": REFUSED,
    "scheduler.power=1.0": REFUSED,
    "loss=ohem": REFUSED,
    "task.head_lr_factor=2.0": REFUSED,
    "seed=1": REFUSED,
    "data.global_batch_size=6": REFUSED,
    "data.train_count=16": REFUSED,
    "data.train_transform.flip=0.0": REFUSED,
    "data.class_uniform=0.5": REFUSED,
    "data.copy_paste=0.5": REFUSED,
    "model/ga=none": REFUSED,
    "model.channels=32": REFUSED,
    "trainer.precision=bf16-mixed": REFUSED,
    "trainer.gradient_clip_val=1.0": REFUSED,
    "inference=slide": REFUSED,
    "callbacks=[checkpoint,progress,ema]": REFUSED,
}


def weights(folder):
    return read_checkpoint(folder / "checkpoints" / "last.ckpt").weights


def stop_after_an_epoch(train):
    def power_cut(self):
        if self.trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(SegmentationTask, "on_train_epoch_start", power_cut)
        train()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An uninterrupted run of three epochs, and one that stopped after the first."""
    folder = tmp_path_factory.mktemp("runs")

    def train(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["gald", "train", *TINY, f"output_dir={folder / name}"])
            patch.setenv("GALD_TRACEBACK", "1")
            cli.main()

    train("whole")
    stop_after_an_epoch(lambda: train("stopped"))
    return folder


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize("change", CHANGES)
def test_a_resumption_is_equal_or_refused(change, runs, gald_cli, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(runs / "stopped", folder)
    before = (folder / "config.yaml").read_bytes()
    words = ["train", *TINY, change, f"output_dir={folder}", "ckpt_path=last"]
    if CHANGES[change] == REFUSED:
        with pytest.raises(ValueError, match="cannot be resumed with other options") as error:
            gald_cli(*words)
        key = re.escape(re.split("[/=]", change)[0].split(".")[0])
        assert re.search(rf"\(.*\b{key}\S* .+ -> .+\); repeat its", str(error.value))
        assert (folder / "config.yaml").read_bytes() == before
        return
    gald_cli(*words)
    if CHANGES[change] == LONGER:
        out = " ".join(capsys.readouterr().out.split())
        assert "trainer.max_epochs was 3 and is now 4: from here the learning rate follows" in out
    else:
        whole, resumed = weights(runs / "whole"), weights(folder)
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.integration
def test_a_longer_training_follows_its_new_schedule_from_the_first_step(runs, gald_cli, tmp_path):
    folder, rates = tmp_path / "run", []
    shutil.copytree(runs / "stopped", folder)
    own = SegmentationTask.training_step

    def training_step(self, batch, batch_idx):
        rates.append(self.optimizers().param_groups[0]["lr"])
        return own(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", training_step)
        words = ("trainer.max_epochs=4", f"output_dir={folder}", "ckpt_path=last")
        gald_cli("train", *TINY, *words)
    steps = range(3, 12)  # three steps per epoch; the first epoch is done
    assert rates == pytest.approx([0.01 * (1 - step / 12) ** 0.9 for step in steps])


def test_an_option_that_an_older_run_lacks_counts_only_if_it_is_asked_for():
    asked = {"loss": {"new": 0.5}, "trainer": {"limit": -1, "other": None, "flag": False}}
    assert changed_options({"seed": 0}, {"seed": 0} | asked) == {"loss.new": "not set -> 0.5"}


@pytest.mark.parametrize("limit", [[], ["trainer.max_steps=8"]])
def test_other_numbers_of_training_images_are_refused(limit, gald_cli, tmp_path, monkeypatch):
    words = ("train", *TINY, *limit, f"output_dir={tmp_path}")
    stop_after_an_epoch(lambda: gald_cli(*words))
    own = SyntheticStreets.__init__

    def with_20_images(self, *arguments, **options):
        own(self, *arguments, **options)
        self.count = 20

    monkeypatch.setattr(SyntheticStreets, "__init__", with_20_images)
    with pytest.raises(ValueError, match="an epoch of the run has 3 steps, but now it has 5:"):
        gald_cli(*words, "ckpt_path=last")


@pytest.mark.integration
def test_a_training_that_steps_end_resumes_with_more_epochs(gald_cli, tmp_path, capsys):
    words = ("train", *TINY, "trainer.log_every_n_steps=1", "trainer.max_steps=4")
    words = (*words, f"output_dir={tmp_path}")
    stop_after_an_epoch(lambda: gald_cli(*words))
    gald_cli(*words, "trainer.max_epochs=4", "ckpt_path=last")
    assert "trainer.max_epochs was 3 and is now 4" in " ".join(capsys.readouterr().out.split())
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]
    assert json.loads((tmp_path / "results.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("endless", ["null", "-1"])
def test_epochs_do_not_shorten_a_training_that_only_steps_end(endless):
    before = compose("train", [f"trainer.max_epochs={endless}", "trainer.max_steps=100"])
    now = compose("train", ["trainer.max_epochs=2", "trainer.max_steps=100"])
    configs = (OmegaConf.to_container(one.trainer) for one in (before, now))
    with pytest.raises(ValueError, match=r"\(trainer\.max_epochs (None|-1) -> 2\); repeat its"):
        check_resume(*({"trainer": one} for one in configs), Path("last.ckpt"))


def test_page_lists_every_change():
    rows = [f"| `{change}` | {end} |" for change, end in CHANGES.items()]
    assert "\n".join(rows) in PAGE.read_text()
