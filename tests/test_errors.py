"""Every mistake of the user ends in one sentence and an exit code above 0."""

import sys
from pathlib import Path

import cv2
import pytest

from gald import cli


def error_sentence(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gald", *arguments])
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code not in (0, None)
    error = capsys.readouterr().err
    sentence, hint = error.splitlines()[-2:]
    assert "Traceback" not in error and "Error executing job" not in error
    assert sentence.startswith("gald: ") and "GALD_TRACEBACK=1" in hint
    return sentence


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model/ga=pps"],
            "model/ga has no option 'pps'; did you mean model/ga=psp? Otherwise",
        ),
        (["model.ga.grups=4"], "no config key model.ga.grups; did you mean model.ga.groups=4?"),
        (["trainer.max_epoch=4"], "did you mean trainer.max_epochs=4?"),
        (["model.ga.groups=7"], "channels (128) must be divisible by groups (7)"),
        (["model.backbone.name=resnet81"], "did you mean"),
        (["model.backbone.weights=nowhere.pth"], "backbone weights not found at nowhere.pth"),
        (["data=camvid", "data.root=no/such/folder"], "no/such/folder"),
        (["data.global_batch_size=0"], "data.global_batch_size"),
        (["data.global_batch_size=9999"], "9999"),
        (["ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
        (["logger.wandb.mode=onlin"], "one of offline, online, disabled"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_train_names_the_cause_and_the_remedy(arguments, message, capsys, monkeypatch, tmp_path):
    arguments = [*arguments, f"output_dir={tmp_path}"]
    assert message in error_sentence(capsys, monkeypatch, "train", *arguments)


def test_unknown_verb_lists_the_verbs(capsys, monkeypatch):
    sentence = error_sentence(capsys, monkeypatch, "trian")
    assert f"choose one of {', '.join(cli.VERBS)}" in sentence


def test_eval_without_a_checkpoint_names_the_key_to_set(capsys, monkeypatch, tmp_path):
    sentence = error_sentence(capsys, monkeypatch, "eval", f"output_dir={tmp_path}")
    assert "ckpt_path" in sentence and "ckpt_path=VALUE" in sentence


def test_help_lists_every_verb(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gald", "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in cli.VERBS)


TINY = [
    "data=camvid",
    "data.train_transform.crop_size=[24,32]",
    "data.global_batch_size=7",
    "model.backbone.name=test_resnet",
    "model.channels=16",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "logger=csv",
    "report=false",
]


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def relabel(path):
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask[0, 0] = 77
    cv2.imwrite(str(path), mask)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (relabel, "trainannot/train_03.png", "77"),
        (cut, "train/train_03.png", "truncated"),
        (Path.unlink, "trainannot/train_03.png", "train_03"),
    ],
    ids=["unknown label", "truncated image", "image without a mask"],
)
def test_bad_file_is_named_by_training(
    damage, file, message, workers, camvid, capsys, monkeypatch, tmp_path
):
    damage(camvid / file)
    arguments = [f"data.root={camvid}", f"data.num_workers={workers}"]
    sentence = error_sentence(
        capsys, monkeypatch, "train", *TINY, *arguments, f"output_dir={tmp_path / 'run'}"
    )
    assert message in sentence and file.split("/")[1].split(".")[0] in sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "demo", "~nosuchuser/a.jpg"],
        ["table", "~nosuchuser/runs"],
        ["compare", "~nosuchuser/a", "demo"],
        ["viz", "demo", "--image", "~nosuchuser/a.jpg"],
    ],
)
def test_the_home_of_an_unknown_user_is_refused(arguments, capsys, monkeypatch):
    assert "stands for no home folder here" in error_sentence(capsys, monkeypatch, *arguments)
