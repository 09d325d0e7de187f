"""Weight files as other programs write them, with random values, go into a backbone or not."""

import argparse
import os
import re
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from gald.model.backbone import TimmBackbone
from gald.model.weights import load_weights
from gald.run.checkpoint import read_checkpoint

TRAIN = [
    *("train", "data=synthetic", "data.size=[48,64]", "data.train_transform.crop_size=[48,64]"),
    *("data.train_count=4", "data.val_count=2", "data.test_count=2", "data.global_batch_size=4"),
    *("data.num_workers=0", "model.channels=16", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=1", "logger=csv", "report=false", "optimizer.lr=0"),
]
BESIDE = {
    "epoch": 3,
    "args": argparse.Namespace(
        lr=0.1,
        output_dir=Path("out"),
        meters=defaultdict(list, a=[1]),
        type=float,
    ),
    "best": np.float64(0.5),
    "history": np.zeros(3),
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
}


def random(name, seed=0):
    """The state dict of a timm network, all of it random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    return {
        key: 0.1 + torch.rand(value.shape, generator=generator)  # variances must be positive
        if value.is_floating_point()
        else torch.randint(9, value.shape, generator=generator)
        for key, value in state.items()
    }


def cheap(name):
    """A state dict with a small file, because each tensor stores only one number."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    return {key: torch.zeros((), dtype=v.dtype).expand(v.shape) for key, v in state.items()}


def prefixed(prefix, state, **more):
    return {prefix + key: value for key, value in state.items()} | more


def mmseg_v1c(state):
    """The names of mmseg's ResNetV1c for those of a timm ResNet with a deep stem."""
    new = {}
    for key, value in state.items():
        if not key.startswith("fc."):
            key = re.sub(r"^conv1\.", "stem.", key)
            new[f"backbone.{re.sub(r'^bn1[.]', 'stem.7.', key)}"] = value
    return {"meta": {"CLASSES": ("road",)}, "state_dict": OrderedDict(new)}


def facebook_convnext(state):
    """The names of the authors of ConvNeXt for those of timm."""
    new = {}
    for key, value in state.items():
        key = key.replace("stem.", "downsample_layers.0.").replace("head.norm", "norm")
        key = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key)
        key = re.sub(r"stages\.(\d)\.blocks\.", r"stages.\1.", key)
        key = key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        new[key.replace("head.fc", "head")] = (
            value.flatten(1) if value.ndim == 4 and "pwconv" in key else value
        )
    return {"model": new}


def swin_authors(state):
    """The names of the authors of Swin for those of timm, with the buffers that they store."""

    def before(match):
        return f"layers.{int(match[1]) - 1}.downsample"

    new = {re.sub(r"layers\.(\d)\.downsample", before, k): v for k, v in state.items()}
    index = torch.zeros(49, 49, dtype=torch.long)
    return {"model": new | {"layers.0.blocks.0.attn.relative_position_index": index}}


def deit3(state):
    return {"model": {re.sub(r"ls(\d)\.gamma", r"gamma_\1", k): v for k, v in state.items()}}


def smp_efficientnet(state):
    """The names of segmentation-models-pytorch for those of a timm EfficientNet."""
    blocks = sorted({tuple(map(int, re.findall(r"\d+", k)[:2])) for k in state if "blocks." in k})
    separable = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"}
    inverted = {
        "conv_pwl": "_project_conv",
        "conv_pw": "_expand_conv",
        "conv_dw": "_depthwise_conv",
    }
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    new = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] != "blocks":
            new[".".join(["encoder", top.get(parts[0], "_fc"), *parts[1:]])] = value
            continue
        stage, block, layer = int(parts[1]), int(parts[2]), parts[3]
        first = stage == 0  # its blocks do not expand
        if layer == "se":
            name = parts[4].replace("conv", "_se")
        elif layer.startswith("bn"):
            name = f"_bn{int(layer[2:]) - (0 if first else 1)}"
        else:
            name = (separable if first else inverted)[layer]
        rest = parts[5:] if layer == "se" else parts[4:]
        new[".".join(["encoder._blocks", str(blocks.index((stage, block))), name, *rest])] = value
    return new | {"decoder.weight": torch.ones(1)}


def equal(net, state):
    """Whether a backbone holds exactly the tensors of a state dict."""
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    own = net.state_dict()
    return len(own) > 30 and all(
        torch.equal(value, flat[key.removeprefix("model.").replace(".", "_")])
        for key, value in own.items()
    )


def load(content, tmp_path, name="test_resnet", **options):
    torch.save(content, tmp_path / "w.pth")
    return TimmBackbone(name, weights=str(tmp_path / "w.pth"), **options)


X, Y = random("test_resnet"), random("test_resnet", 1)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"state_dict": X, "arch": "resnet"}, r"75 .* from state_dict; left fc \(2\)"),
        ({"model": prefixed("module.", X)}, r"from model, without the prefix module\.;"),
        (
            {"state_dict": Y, "state_dict_ema": prefixed("module.", X)},
            r"from state_dict_ema, .* module\.; .* did not use state_dict",
        ),
        (
            {"model": Y, "model_ema": prefixed("module.", X, n_averaged=torch.tensor(3))},
            "model_ema",
        ),
        (
            {
                "student": prefixed("module.backbone.", Y),
                "teacher": prefixed("backbone.", X, **{"head.mlp.0.weight": torch.ones(3)}),
            },
            r"from teacher, without the prefix backbone\.; left fc \(2\), head \(1\); did not use "
            r"student\.module\.backbone",
        ),
        (
            {
                "state_dict": prefixed("module.encoder_k.", Y)
                | prefixed("module.encoder_q.", X, **{"module.queue": torch.ones(2)})
            },
            r"prefix module\.encoder_q\.; left .*encoder_k \(77\).*, queue \(1\)",
        ),
        (
            {
                "state_dict": prefixed("module.momentum_encoder.", Y)
                | prefixed("module.base_encoder.", X)
            },
            r"prefix module\.base_encoder\.",
        ),
        (
            {
                "meta": {},
                "state_dict": prefixed("backbone.", X, **{"decode_head.b": torch.ones(1)}),
            },
            r"prefix backbone\.; left fc \(2\), decode_head \(1\)",
        ),
        (
            {
                "message_hub": {},  # mmengine stores the average as state_dict
                "state_dict": prefixed("backbone.", X),
                "ema_state_dict": prefixed("module.backbone.", Y),
            },
            r"from state_dict, without the prefix backbone\.",
        ),
        (prefixed("encoder.", X, **{"decoder.b": torch.ones(1)}), r"prefix encoder\.; left"),
        (
            {"net": {"model_state": prefixed("_orig_mod.module.model.backbone.", X)}},
            r"from net\.model_state, without the prefix _orig_mod\.module\.model\.backbone\.;",
        ),
        ({key: nn.Parameter(v, False) for key, v in X.items()}, r"90 tensors of \S+w\.pth; left"),
        ({key: v for key, v in X.items() if not key.startswith("fc.")}, r"w\.pth$"),
    ],
    ids=[
        *("timm", "deit", "timm ema", "torchvision ema", "dino", "moco", "moco v3", "mmseg"),
        *("mmengine ema", "smp", "user", "parameters", "no head"),
    ],
)
def test_file_of_another_program_loads_tensor_by_tensor(content, line, tmp_path, capsys):
    backbone = load(content if "model" in content else content | BESIDE, tmp_path)
    assert equal(backbone.net, X)
    (printed,) = capsys.readouterr().err.splitlines()
    assert re.search(line.replace("75", "90"), printed), printed


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("resnet50c", mmseg_v1c),
        ("tf_efficientnet_b0", smp_efficientnet),
        ("test_convnext", facebook_convnext),
        ("swin_tiny_patch4_window7_224", swin_authors),
        ("deit3_small_patch16_224", deit3),
    ],
)
def test_other_names_are_renamed_tensor_by_tensor(name, rename, tmp_path):
    state = random(name)
    torch.save(rename(state), tmp_path / "w.pth")
    with torch.device("meta"):  # initial values of a large network take seconds
        net = timm.create_model(name, features_only=True)
    net.to_empty(device="cpu")
    load_weights(net, str(tmp_path / "w.pth"))
    assert equal(net, state)


def test_format_is_known_by_content_and_halves_are_widened(tmp_path):
    halves = {key: value.half() for key, value in X.items() if value.is_floating_point()}
    for file in ("w.safetensors", "w.bin"):
        safetensors.torch.save_file(halves, tmp_path / file)
        backbone = TimmBackbone("test_resnet", weights=str(tmp_path / file))
        own = backbone.net.state_dict()
        assert all(torch.equal(own[key], halves[key].float()) for key in own if key in halves)
        assert own["bn1.num_batches_tracked"] == 0  # not in the file
    torch.save(X, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert equal(TimmBackbone("test_resnet", weights=str(tmp_path / "old.pth")).net, X)


def test_deep_levels_that_are_not_used_are_left(tmp_path, capsys):
    load(X, tmp_path, levels=[0, 1, 2])
    assert re.search(r"left layer3 \(\d+\), layer4 \(\d+\), fc \(2\)", capsys.readouterr().err)


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (
            "resnet50",
            "resnet101",
            r"255 tensors .* no place: layer3\.6\..* is .*, resnet101, while",
        ),
        ("resnet101", "resnet50", r"318 of the 624 .* resnet50, .*model\.backbone\.name=resnet50$"),
        ("resnet18", "resnet34", r"another architecture, resnet34, while this is resnet18"),
        ("resnet50", "resnet50d", r"another architecture, resnet50d, while"),
        ("resnet50", "seresnet50", r"no place: layer1\.0\.se\..* squeeze-and-excitation blocks"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_384", r"24x24 and 1 .*14x14 and 1 .*image size"),
        ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", r"14x14 and 2 .* class tokens"),
        ("vit_small_patch16_224", "vit_small_patch32_224", r"patch 32, while .* patch 16"),
        ("vit_tiny_patch16_224", "vit_small_patch16_224", r"width 384 .* while .* width 192"),
        ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", r"2-2-18-2 .* 2-2-6-2"),
        ("test_resnet", "mobilenetv3_small_050", r"1 of the 90 .* no|has \d of the 90 tensors"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(name, source, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        torch.save({"model": cheap(source)}, tmp_path / "w.pth")
        with torch.device("meta"):  # refused before anything is loaded
            TimmBackbone(name, weights=str(tmp_path / "w.pth"))


def nan(state):
    spoilt = state["layer1.0.conv1.weight"].clone()
    spoilt[0] = float("nan")
    return state | {"layer1.0.conv1.weight": spoilt}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (X | {"conv1.0.weight": torch.ones(16, 1, 3, 3)}, r"images of 1 channel instead of 3"),
        (nan(X), r"of the 9216 values of layer1\.0\.conv1\.weight are nan"),
        (
            {k: v.double() * 1e300 for k, v in X.items()},
            r"values of conv1\.0\.weight are nan or inf",
        ),
        (
            {key: v.to(torch.int8) for key, v in X.items()},
            r"torch\.int8, as of a quantised network",
        ),
        ({"a": X, "b": Y}, r"this backbone twice, under a and under b, with other values"),
        ({"state_dict": {}}, r"contains a dict without tensors, not a state dict"),
        ([1], r"contains a list without tensors"),
        ({"gald": {}, "state_dict": X}, r"network that gald trained.* init_from=\S+w\.pth "),
        (
            nn.Sequential(),
            r"it contains torch\.nn\.modules\.container\.Sequential, .*state_dict\(\)",
        ),
    ],
    ids=["channels", "nan", "overflow", "int8", "twice", "empty", "list", "gald", "module"],
)
def test_unusable_weights_are_refused_with_the_cause(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(content, tmp_path)


class Code:
    """Pickled as a call of `os.system`."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def written(content, keep=1.0, **options):
    def write(path):
        torch.save(content, path, **options)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    return write


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (written({"a": Code()}), r"it contains posix\.system, .* no code"),
        (written(X, 0.6), r"truncated after \d+ bytes\); copy or download it again"),
        (written(X, 0.6, _use_new_zipfile_serialization=False), r"damaged or truncated"),
        (written(X, 0.0), r"the file is empty"),
        (written(X, pickle_protocol=4), r"pickle protocol is not the one of torch\.save"),
        (lambda path: path.write_text("<!DOCTYPE html>\n<html>"), r"a web page, not the file"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "git lfs pull",
        ),
        (lambda path: path.write_text('{"error": 404}'), r"text that begins with .*404"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), r"begins with b.*x89PNG"),
        (npz, r"zip file, but not one of torch"),
    ],
    ids=["code", "cut", "cut old", "empty", "protocol", "html", "lfs", "json", "png", "npz"],
)
def test_file_that_is_no_checkpoint_is_named_by_gald_train(
    write, message, tmp_path, gald_cli, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(Path("w.pth"))
    words = ["model.backbone.name=test_resnet", "model.backbone.weights=w.pth", "output_dir=run"]
    with pytest.raises(Exception, match=message) as caught:
        gald_cli(*TRAIN, *words)
    assert "w.pth" in str(caught.value) and not Path("ran").exists()


@pytest.mark.integration
def test_gald_train_starts_from_the_weights_of_a_moco_file(tmp_path, gald_cli, capsys):
    torch.save({"state_dict": prefixed("module.encoder_q.", X)} | BESIDE, tmp_path / "moco.pth")
    words = [f"model.backbone.weights={tmp_path}/moco.pth", "model.backbone.name=test_resnet"]
    gald_cli(*TRAIN, *words, f"output_dir={tmp_path}/run")
    assert (
        "moco.pth from state_dict, without the prefix module.encoder_q." in capsys.readouterr().err
    )
    trained = read_checkpoint(tmp_path / "run").weights
    compared = [key for key in X if not re.match(r"fc|.*(running|num_batches)", key)]
    assert len(compared) > 40
    assert all(torch.equal(trained[f"backbone.net.{key}"], X[key]) for key in compared)


def test_folder_of_a_run_is_sent_to_init_from(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"run is a whole network .* init_from=\S+run "):
        TimmBackbone("test_resnet", weights=str(tmp_path / "run"))
