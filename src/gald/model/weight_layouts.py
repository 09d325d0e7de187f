"""Names that other programs give to the tensors of a backbone, renamed to timm's."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import timm
from torch import Tensor, nn

State = dict[str, Tensor]

EFFICIENTNET_STEM = "_conv_stem.weight"  # a key of the package efficientnet_pytorch
# Tensors that timm's filters interpolate if image, patch or window have another size.
_INTERPOLATED = ("pos_embed", "patch_embed.proj.weight", "relative_position", "rel_pos")


def layouts(state: State, whole: nn.Module, architecture: str) -> Iterator[State]:
    """Yield a state dict as it is, then under the names of each layout that it may have.

    Args:
        state: state dict of one network, without prefix.
        whole: timm's network with its classifier.
        architecture: timm's name of it.
    """
    yield state
    if "stem.0.weight" in state and "layer1.0.conv1.weight" in state:
        yield _rename_mmseg_stem(state)
    if EFFICIENTNET_STEM in state:
        yield _rename_efficientnet(state, whole)
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    convert: Callable[..., Any] | None = getattr(module, "checkpoint_filter_fn", None)
    if convert is not None:
        converted = _convert(convert, state, whole)
        if converted is not None:
            yield converted


def _rename_mmseg_stem(state: State) -> State:
    """Rename the deep stem of mmseg's ResNetV1c and V1d; its last norm is `bn1` in timm."""
    names = {**{f"stem.{n}": f"conv1.{n}" for n in range(7)}, "stem.7": "bn1"}
    renamed = {}
    for key, value in state.items():
        module, _, tensor = key.rpartition(".")
        renamed[f"{names.get(module, module)}.{tensor}" if module else key] = value
    return renamed


def _convert(convert: Callable[..., Any], state: State, whole: nn.Module) -> State | None:
    """Apply timm's filter for published files, without its interpolations.

    An interpolated tensor would hide that the file is for another image or patch size, so the
    file's own tensor stays in its place.
    """
    options = {}
    if "adapt_layer_scale" in inspect.signature(convert).parameters:
        options["adapt_layer_scale"] = True  # the names of DeiT III
    try:
        converted = convert(dict(state), whole, **options)
    except Exception:  # the filter expects another file
        return None
    storages = {value.untyped_storage().data_ptr() for value in state.values()}
    for key, value in list(converted.items()):
        made = value.untyped_storage().data_ptr() not in storages
        if made and any(part in key for part in _INTERPOLATED):
            del converted[key]
            if key in state:
                converted[key] = state[key]
    return converted


def _rename_efficientnet(state: State, whole: nn.Module) -> State:
    """Rename the keys of the packages `efficientnet_pytorch` and `efficientnet_lite_pytorch`."""
    positions = sorted(
        {
            (int(match[1]), int(match[2]))
            for key in whole.state_dict()
            if (match := re.search(r"blocks\.(\d+)\.(\d+)\.", key))
        }
    )
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    excite = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
    separable = excite | {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    inverted = excite | {
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
        expands = f"_blocks.{number}._expand_conv.weight" in state
        name = (inverted if expands else separable).get(parts[2])
        if number >= len(positions) or name is None:
            renamed[f"blocks.{key}"] = value  # a block too many: reported, not dropped
            continue
        stage, block = positions[number]
        renamed[".".join([f"blocks.{stage}.{block}", name, *parts[3:]])] = value
    return renamed
