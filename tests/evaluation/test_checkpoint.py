"""`gald eval` takes data and inference from the checkpoint, and keys of them from the user."""

import json

import pytest
import torch

from gald.data.synthetic import SyntheticStreets

SMALL = ["data.size=[48,64]", "data.val_count=3", "data.num_workers=0", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def run(trained):
    return trained(*SMALL)


def evaluate(gald_cli, run, tmp_path, *words):
    out = tmp_path / "out"
    options = ["metrics=miou", "trainer.accelerator=cpu", f"output_dir={out}"]
    gald_cli("eval", f"ckpt_path={run}", *options, *words)
    return json.loads((out / "results.json").read_text())["val/receipt"]


def test_keys_change_the_data_and_the_inference_of_the_checkpoint(run, gald_cli, tmp_path):
    words = ["data.val_count=2", "inference.align_corners=true"]
    receipt = evaluate(gald_cli, run, tmp_path, *words)
    assert receipt["data"]["val_count"] == 2 and receipt["data"]["size"] == [48, 64]
    assert receipt["inference"]["align_corners"] is True


def test_keys_of_a_part_inside_another_change_only_themselves(trained, gald_cli, tmp_path):
    windows = ["inference=multi_scale_slide", "inference.over.window=[32,32]"]
    run = trained(*SMALL, *windows, "inference.over.blending=gaussian", "inference.scales=[1.0]")
    inference = evaluate(gald_cli, run, tmp_path, "inference.over.window=[24,32]")["inference"]
    assert inference["over"]["window"] == [24, 32] and inference["scales"] == [1.0]
    assert inference["over"]["blending"] == "gaussian"


def test_keys_of_a_chosen_option_are_its_own(run, gald_cli, tmp_path):
    words = ["data=synthetic", "data.size=[48,64]", "data.val_count=1", "data.num_workers=0"]
    assert evaluate(gald_cli, run, tmp_path, *words)["data"]["val_count"] == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.val_cuont=2", "val_cuont"),
        ("data.val_count=two", "two"),
        ("data.num_workers=100000", "100000"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_built(run, gald_cli, tmp_path, word, message):
    with pytest.raises(ValueError, match=message):
        evaluate(gald_cli, run, tmp_path, word)
    assert not (tmp_path / "out" / "results.json").exists()


def test_as_many_other_classes_are_refused(run, gald_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(SyntheticStreets, "class_names", SyntheticStreets.class_names[::-1])
    with pytest.raises(ValueError, match="choose data with the network's classes"):
        evaluate(gald_cli, run, tmp_path)


@pytest.mark.parametrize("data", ["abc", ["a"]], ids=str)
def test_keys_for_data_of_a_checkpoint_that_are_no_table_are_refused(run, gald_cli, tmp_path, data):
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["gald"]["config"]["data"] = data
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match=r"odd\.ckpt has .* as data") as refusal:
        evaluate(gald_cli, tmp_path / "odd.ckpt", tmp_path, "data.root=x")
    assert "\n" not in str(refusal.value) and "; " in str(refusal.value)
