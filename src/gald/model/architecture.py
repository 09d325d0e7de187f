"""Names of the common architectures, from nothing but the names and shapes in a state dict."""

import re
from collections.abc import Mapping

from torch import Tensor

_RESNETS = {
    (2, 2, 2, 2): "18",
    (3, 4, 6, 3): "50",
    (3, 4, 23, 3): "101",
    (3, 8, 36, 3): "152",
}
_STEMS = {32: "c", 64: "s"}  # width of the first of three convolutions


def describe(state: Mapping[str, Tensor]) -> str | None:
    """Name the architecture that a state dict belongs to; None if it is of no known family.

    A ResNet gets its name in timm. Others get family, width, patch and numbers of blocks, which is
    enough to tell two of them apart.
    """
    if "layer1.0.conv1.weight" in state:
        return _resnet(state)
    if "blocks.0.attn.qkv.weight" in state and "patch_embed.proj.weight" in state:
        width, _, patch = state["patch_embed.proj.weight"].shape[:3]
        blocks = _count(state, r"blocks\.(\d+)\.")
        return f"a ViT of width {width} with {blocks} blocks and patch {patch}"
    if any(key.endswith("attn.relative_position_bias_table") for key in state):
        width = _width(state, "patch_embed.proj.weight")
        depths = _depths(state, r"layers\.(\d+)\.blocks\.(\d+)\.")
        return f"a Swin{width} with {depths} blocks"
    if any(".dwconv." in key or ".conv_dw." in key for key in state) and any(
        key.startswith("stages.") for key in state
    ):
        width = _width(state, "stem.0.weight") or _width(state, "downsample_layers.0.0.weight")
        depths = _depths(state, r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.")
        return f"a ConvNeXt{width} with {depths} blocks"
    return None


def _resnet(state: Mapping[str, Tensor]) -> str:
    depths = tuple(_count(state, rf"layer{stage}\.(\d+)\.conv1\.") for stage in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    depth = _RESNETS.get(depths)
    if depth == "50" and not bottleneck:
        depth = "34"
    width = len(state["layer1.0.conv1.weight"])
    conv = state.get("layer1.0.conv2.weight")
    grouped = conv is not None and conv.shape[0] != conv.shape[1]
    excited = any(".se." in key for key in state)
    plain = bottleneck == (depth not in ("18", "34")) and width == 64
    if depth is None or not plain or grouped or excited:
        kind = "grouped" if grouped else "squeeze-and-excitation" if excited else "other"
        return f"a ResNet of width {width} with {depths} {kind} blocks"
    stem = state.get("conv1.0.weight", state.get("stem.0.weight"))
    if stem is None:
        return f"resnet{depth}"
    averages = "layer2.0.downsample.2.weight" in state
    return f"resnet{depth}{'d' if averages else _STEMS.get(len(stem), 'c')}"


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _depths(state: Mapping[str, Tensor], pattern: str) -> str:
    blocks = {(match[1], match[2]) for key in state if (match := re.match(pattern, key))}
    stages = sorted({stage for stage, _ in blocks}, key=int)
    return "-".join(str(sum(stage == s for s, _ in blocks)) for stage in stages)


def _width(state: Mapping[str, Tensor], key: str) -> str:
    return f" of width {state[key].shape[0]}" if key in state else ""
