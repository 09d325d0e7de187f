"""A run from before files and keys were renamed still evaluates, predicts, resumes and compares.

`old_run` was trained at commit 0cc7e97 (version 0.1.0): `gald train experiment=demo`, with a small
network, small images and a short training.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gald
from gald.comparison.runs import read_run
from gald.run.checkpoint import read_checkpoint
from gald.run.old_names import TARGETS, renew_config, renew_results
from gald.run.results import read_results

OLD = Path(__file__).with_name("old_run")


@pytest.fixture
def old_run(tmp_path):
    """A copy, so that tests write nothing into the repository."""
    return Path(shutil.copytree(OLD, tmp_path / "old_run"))


@pytest.fixture
def evaluated(old_run, gald_cli, tmp_path):
    """Results of both splits in the old format, with the numbers of this machine."""
    before = json.loads((old_run / "results.json").read_text())
    for split in ("val", "test"):
        to = tmp_path / split
        words = (f"split={split}", "~metrics.ece", f"output_dir={to}")
        gald_cli("eval", f"ckpt_path={old_run}", *words)
        now = read_results(to / "results.json")
        for key, value in now.items():
            if key.startswith(f"{split}/") and not key.endswith("/receipt"):
                assert (value is None) == (before[key] is None), key
                # Rounding on another processor can change the class of a pixel.
                assert value is None or value == pytest.approx(before[key], abs=0.02), key
                before[key] = value
        receipt, old = now[f"{split}/receipt"], before[f"{split}/receipt"]
        assert receipt["images_sha256"] == old["images_sha256"]
        assert receipt["ground_truth_sha256"] == old["truth_sha256"]
        old["predictions_sha256"] = receipt["predictions_sha256"]
    path = old_run / "results.json"
    path.write_text(json.dumps(before))
    return path


def test_old_receipt_is_confirmed(evaluated, old_run, gald_cli, capsys):
    gald_cli("eval", "--check", str(evaluated), f"ckpt_path={old_run}/checkpoints/best.ckpt")
    shown = capsys.readouterr().out
    assert "val: " in shown and "test: " in shown and "numbers and all labels equal" in shown


def test_old_checkpoint_predicts(old_run):
    network = gald.load(old_run)
    assert type(network.inference).__name__ == "FullImage"
    prediction = network.predict(np.zeros((48, 64, 3), np.uint8))
    assert prediction.labels.shape == (48, 64) and prediction.ld_map is not None


@pytest.mark.integration
def test_old_training_resumes(old_run, gald_cli, tmp_path):
    """Six epochs were trained; the seventh starts from the old state.

    At that time OHEM chose the pixels over a batch.
    """
    config = read_checkpoint(old_run).config
    assert config["scheduler"]["_target_"] == "gald.scheduler.poly"
    gald_cli(
        *("train", "experiment=demo", f"ckpt_path={old_run}/checkpoints/best.ckpt"),
        *("loss.main.over=batch", "loss.main.min_kept=16000"),
        *("model.channels=16", "model.backbone.name=test_efficientnet"),
        *("model.backbone.weights=null", "optimizer=sgd", "optimizer.momentum=0"),
        *("optimizer.lr=0.1", "scheduler=poly", "data.size=[48,64]"),
        *("data.train_transform.crop_size=[48,64]", "data.train_count=64", "data.val_count=5"),
        *(
            "data.test_count=3",
            "data.global_batch_size=4",
            "data.num_workers=0",
            "trainer.accelerator=cpu",
        ),
        *("trainer.max_epochs=7", "logger=csv", "report=false", "metrics=miou", "test=false"),
        f"output_dir={tmp_path / 'new'}",
    )
    assert read_results(tmp_path / "new" / "results.json")["steps"] == 7 * 16


def test_old_results_are_read_with_current_names(old_run):
    run = read_run(old_run, "val")
    assert run.results["cost/ga/gmacs"] > 0 and run.results["cost/aux_head/params"] > 0
    assert not [key for key in run.results if key.startswith("price/")]
    names = [type(metric).__name__ for metric in run.metrics]
    assert names[0] == "ConfusionMatrix" and "BoundaryFDecoupleSegNets" in names
    assert run.receipt["inference"]["_target_"] == "gald.inference.whole.FullImage"


def test_options_that_were_words_become_booleans():
    config = {
        "model": {
            "_target_": "gald.models.segmentor.Segmentor",
            "residual": "code",
            "aux": None,
            "backbone": {"_target_": "gald.models.backbone.TimmBackbone", "first_block": "timm"},
            "ga": [{"_target_": "gald.modules.ga.gc.GC"}],
        }
    }
    renewed = renew_config(config)["model"]
    assert renewed["_target_"] == "gald.model.segmentor.Segmentor"
    assert renewed["add_context_twice"] is True and renewed["aux_head"] is None
    assert renewed["backbone"]["dilate_first_block"] is False
    assert renewed["ga"][0]["_target_"] == "gald.model.ga.global_context.GC"
    assert renew_config(renewed) == renewed, "current names stay"
    assert config["model"]["residual"] == "code", "the original is unchanged"


def test_no_old_name_is_a_current_module():
    for old in TARGETS:
        place = old.rstrip(".").removeprefix("gald.").replace(".", "/")
        source = Path(gald.__file__).parent / place
        assert not source.is_dir() and not source.with_suffix(".py").is_file(), old


def test_keys_of_results_are_renamed_once():
    old = {"price/aux/params": 3, "price/total/gmacs": 0.5, "val/miou": 0.25, "prices": 1}
    new = {"cost/aux_head/params": 3, "cost/total/gmacs": 0.5, "val/miou": 0.25, "prices": 1}
    assert renew_results(old) == new == renew_results(new)
