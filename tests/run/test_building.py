"""What a file may decide, and how code of one's own is named on the command line instead."""

import copy

import fake
import pytest
import torch
from omegaconf import OmegaConf

import gald
from gald.config import CONF_DIR, compose
from gald.run import building

OWN = """
import os
from os import path
from torch import nn
from gald.model.ga.gap import GAP


class Same(nn.Module):
    def __init__(self, channels: int = 1, inner=None, **more):
        super().__init__()

    def forward(self, x):
        return x


class NoModule:
    pass


def make(channels):
    return Same()
"""


@pytest.fixture(scope="module")
def run(trained):
    return trained("model/ga=none", "data.size=[32,48]", "data.val_count=2", "data.num_workers=0")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of the user's own, `mine_of_a_user`."""
    package = tmp_path / "packages" / "mine_of_a_user"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from mine_of_a_user.inside import Same\n")
    (package / "inside.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(package.parent))
    return "mine_of_a_user"


@pytest.fixture
def planted(run, tmp_path):
    """Return a function that writes the run with other values in its config."""

    def write(**values):
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content = copy.deepcopy(content)
        for place, value in values.items():
            node = content["gald"]["config"]
            *keys, last = place.split("__")
            for key in keys:
                node = node[key]
            node[last] = value
        path = tmp_path / "planted.ckpt"
        torch.save(content, path)
        return path

    return write


@pytest.mark.parametrize("slot", ["backbone", "neck", "ga", "ld", "head", "aux_head"])
def test_every_option_of_a_network_is_accepted_from_a_file(slot):
    for path in sorted((CONF_DIR / "model" / slot).glob("*.yaml")):
        options = {"channels": 64, "align_corners": False, slot: OmegaConf.load(path)}
        whole = OmegaConf.to_container(OmegaConf.create({"model": options}), resolve=True)
        part = whole["model"][slot]
        if "_target_" in part:  # aux_head=none is null
            assert building.check(slot, part, "FILE").keys() == part.keys()


@pytest.mark.parametrize("group", ["data", "inference"])
def test_every_option_of_an_evaluation_is_accepted_from_a_file(group):
    for path in sorted((CONF_DIR / group).glob("*.yaml")):
        cfg = compose("train", [f"{group}={path.stem}", "metrics=all", "output_dir=x"])
        part = OmegaConf.to_container(cfg, resolve=True)[group]
        assert building.check(group, part, "FILE").keys() == part.keys()
    assert building.check_metrics(OmegaConf.to_container(cfg.metrics), "FILE").keys()


def test_own_code_is_built_if_the_caller_names_its_package(planted, mine):
    same = {"_target_": f"{mine}.inside.Same", "channels": "any", "inner": {"a": [1]}, "new": 1}
    path = planted(model__ga=same)
    with pytest.raises(ValueError, match=r"planted\.ckpt would call mine_of_a_user\.inside\.Same"):
        gald.load(path)
    with pytest.raises(ValueError, match="would call"):
        gald.load(path, trust="mine_of_a")
    for trust in (mine, [mine], ("other", mine), f"other,{mine}", f"{mine}.inside"):
        assert type(gald.load(path, trust=trust).model.ga).__name__ == "Same"
    shorter = planted(model__ga={"_target_": f"{mine}.Same"})
    assert type(gald.load(shorter, trust=mine).model.ga).__module__ == f"{mine}.inside"
    nested = planted(model__ga=same | {"inner": {"_target_": f"{mine}.Same"}})
    assert gald.load(nested, trust=mine)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("inside.os.system", "cannot be imported"),
        ("inside.path", "no class that a trusted package defines"),
        ("inside.GAP", "no class that a trusted package defines"),
        ("inside.nn.Identity", "cannot be imported"),
        ("inside.make", "no class that a trusted package defines"),
        ("inside.NoModule", "is no Module; derive it from torch.nn.Module"),
        ("inside.Nowhere", "no class that a trusted package defines"),
        ("nowhere.Same", "cannot be imported"),
    ],
)
def test_a_trusted_package_lends_only_its_own_classes_of_the_slot(planted, mine, target, words):
    path = planted(model__ga={"_target_": f"{mine}.{target}"})
    with pytest.raises(ValueError, match=rf"planted\.ckpt names .*{words}"):
        gald.load(path, trust=mine)


@pytest.mark.parametrize("trust", [3, {"a": 1}, [1], "", "a b", "./mine", "a.", ["os", ""]])
def test_trust_that_names_no_package_is_an_error(run, trust):
    with pytest.raises(ValueError, match="trust"):
        gald.load(run, trust=trust)


@pytest.mark.parametrize("word", ["trust={}", "trust=[other,{}]", "+trust=[{}]"])
def test_eval_takes_trust_as_an_option(planted, mine, word, gald_cli, tmp_path):
    path = planted(model__ga={"_target_": f"{mine}.Same"})
    words = ["eval", f"ckpt_path={path}", f"output_dir={tmp_path / 'out'}", "metrics=miou"]
    gald_cli(*words, "trainer.accelerator=cpu", word.format(mine))
    check = ["eval", "--check", str(tmp_path / "out" / "results.json"), "trainer.accelerator=cpu"]
    gald_cli(*check, word.format(mine))
    with pytest.raises(ValueError, match="would call"):
        gald_cli(*check)


def test_verbs_take_trust_as_an_option(planted, mine, gald_cli, tmp_path):
    path = planted(model__ga={"_target_": f"{mine}.Same"})
    words = ["export", str(path), "--format", "pretrained", "--to", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="would call"):
        gald_cli(*words)
    gald_cli(*words, "--trust", "other", "--trust", mine)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_evaluation_writes_no_cache_where_a_file_says(planted, gald_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("GALD_CACHE", str(tmp_path / "own"))
    root = fake.camvid(tmp_path / "camvid")
    data = {
        "_target_": "gald.data.camvid.CamVidDataModule",
        "root": str(root),
        "cache": "decoded",
        "cache_dir": str(tmp_path / "theirs"),
        "num_workers": 0,
        "train_transform": {"_target_": "os.system", "command": "touch planted"},
    }
    before = sorted(root.rglob("*"))
    names = list(fake_names())
    path = planted(data=data)
    content = torch.load(path, weights_only=True)
    content["gald"]["class_names"] = names
    content["gald"]["palette"] = [[number, 0, 0] for number in range(len(names))]
    content["state_dict"] = {
        key: value[: len(names)].repeat(2, *[1] * (value.dim() - 1))[: len(names)]
        if "classify" in key
        else value
        for key, value in content["state_dict"].items()
    }
    for key, value in content["state_dict"].items():
        if "classify" in key:
            more = value.new_zeros(len(names) - len(value), *value.shape[1:])
            content["state_dict"][key] = torch.cat([value, more])
    torch.save(content, path)
    words = ["eval", f"ckpt_path={path}", f"output_dir={tmp_path / 'out'}", "metrics=miou"]
    gald_cli(*words, "trainer.accelerator=cpu")
    assert not (tmp_path / "theirs").exists() and sorted(root.rglob("*")) == before
    assert [p.parent.name for p in (tmp_path / "own").rglob("pixels.u8")]


def fake_names():
    from gald.data.camvid import CamVid

    return CamVid.class_names


@pytest.mark.parametrize("key", ["root", "classes"])
@pytest.mark.parametrize("path", ["//server/share", "\\\\server\\share"])
def test_a_path_on_another_machine_is_refused(key, path):
    config = {"_target_": "gald.data.folder.FolderDataModule", "root": "here", key: path}
    with pytest.raises(ValueError, match=rf"FILE has .* as data\.{key}, a path on another machine"):
        building.build("data", config, "FILE")


def test_initial_weights_of_a_file_are_never_looked_for(planted, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("looked for weights")

    monkeypatch.setattr("gald.model.backbone.load_weights", fail)
    for weights in ("package:stranger", "/etc/passwd", "https://127.0.0.1:9/w.pth", "timm"):
        assert (
            gald.load(planted(model__backbone__weights=weights)).config["model"]["backbone"][
                "weights"
            ]
            is None
        )


@pytest.mark.parametrize("name", ["hf-hub:owner/name", "local-dir:lair", "owner/name"])
def test_training_refuses_a_backbone_that_a_checkpoint_could_not_build(name):
    from gald.model.backbone import TimmBackbone

    with pytest.raises(ValueError, match=r"would be looked up .*; set model\.backbone\.name"):
        TimmBackbone(name)


def test_training_refuses_a_config_that_its_checkpoint_could_not_hold(gald_cli, tmp_path):
    words = ["train", "model.backbone.name=test_resnet", "model.channels=8", "data.size=[32,48]"]
    with pytest.raises(ValueError, match=r"note=a \$\{b\}: nothing reads note"):
        gald_cli(*words, f"output_dir={tmp_path / 'run'}", "logger=[]", "+note='a \\${b}'")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_published_network_names_the_data_that_it_leaves_out(gald_cli, trained, tmp_path):
    gald.load(trained("data=camvid", f"data.root={tmp_path}")).save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"config\.json leaves data\.root out"):
        gald_cli("eval", f"ckpt_path={tmp_path / 'saved'}", f"output_dir={tmp_path / 'out'}")
