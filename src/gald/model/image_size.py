"""Image sizes that a timm network takes, and the true strides of its maps, found by trying."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import Format
from torch import Tensor, nn

from gald.model.idle import leaves_of

OTHER = "choose another backbone, for example model.backbone.name=resnet18"


class SizeRule(NamedTuple):
    """How images of any size fit a network.

    Attributes:
        strides: stride of every map, as measured.
        channels: width of every map.
        multiple: what the sides of the input must be multiples of.
        resizes: whether an image is resized to the next multiple, as for patches; otherwise pixels
            are added at the right and at the bottom.
        minimum: what the sides of the input must be at least.
        last_uses_all: whether the last map depends on every parameter.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    multiple: int
    resizes: bool
    minimum: int
    last_uses_all: bool

    def padded(self, size: Sequence[int]) -> tuple[int, int]:
        """Return height and width of an image after padding."""
        height, width = (max(side, self.minimum) for side in size)
        if not self.resizes:
            height, width = (round_up(side, self.multiple) for side in (height, width))
        return height, width


def find_size_rule(create: Callable[[], Any], name: str) -> SizeRule:
    """Find out which image sizes a network takes, and the strides of its maps.

    Tries what changes an image least: no change, or a resize to whole patches; then padding to a
    multiple of the stride; then padding to a multiple of the size of its training, for networks
    with windows. Each try must give maps of ceil(side / stride) cells. Only shapes are propagated,
    in a copy without weights.

    Args:
        create: builds the network; it is called on torch's meta device.
        name: timm's name, for messages.

    Raises:
        ValueError: the network gives no such maps for images of any size.
    """
    with torch.device("meta"):
        net = create().eval()
    info, patch = net.feature_info, patch_size(net)
    deepest = max(info.reduction())
    trained = net.pretrained_cfg["input_size"][-2:]
    for multiple in (1, deepest, 2 * deepest, 4 * deepest, math.lcm(deepest, *trained)):
        resizes = multiple == 1 and patch > 1
        whole = round_up(max(deepest, *trained), math.lcm(deepest, multiple, patch))
        try:
            maps = channels_first(net, net(torch.empty(1, 3, whole, 2 * whole, device="meta")))
            shapes = [m.shape[1:] for m in maps]
        except Exception:  # of any type: timm has no common one for a size that does not fit
            continue
        strides = tuple(round(whole / height) for _, height, _ in shapes)
        channels = tuple(width for width, _, _ in shapes)
        used = leaves_of([maps[-1].grad_fn])
        all_used = all(id(p) in used for p in net.parameters())
        if list(strides) != sorted(strides):
            continue
        for minimum in (1, strides[-1]):
            step = patch if resizes else multiple
            rule = SizeRule(strides, channels, step, resizes, minimum, all_used)
            if _holds(net, rule):
                return rule
    raise ValueError(f"{name} {_reason(net, trained)}; {OTHER}")


def map_shapes(net: Any, size: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return channels, height and width of the maps of a network on the meta device."""
    with torch.no_grad():
        maps = channels_first(net, net(torch.empty(1, 3, *size, device="meta")))
    return [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]


def channels_first(net: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    """Return the maps of a timm feature extractor as (B, C, h, w)."""
    if getattr(net, "output_fmt", None) == Format.NHWC:
        return [m.permute(0, 3, 1, 2) for m in maps]
    return list(maps)


def patch_size(net: nn.Module) -> int:
    """Return the side of a network's patches; 1 if it has none."""
    for module in net.modules():
        if type(module).__name__.startswith("PatchEmbed") and hasattr(module, "patch_size"):
            return int(module.patch_size[0])  # ty: ignore[not-subscriptable]
    return 1


def round_up(side: int, multiple: int) -> int:
    """Return the smallest multiple that is not below a number."""
    # ONNX rounds a division towards zero, so there must be no negative number.
    return (side + multiple - 1) // multiple * multiple


def _holds(net: Any, rule: SizeRule) -> bool:
    deepest, step = rule.strides[-1], rule.multiple
    sizes = [(1, 1), (5, 3 * deepest - 1), (33, 50), (65, 97), (deepest + 1, 2 * step + 1)]
    for size in sizes:
        padded = rule.padded(size)
        given = [round_up(side, step) for side in padded]
        try:
            shapes = map_shapes(net, given)
        except Exception:
            return False
        if rule.resizes:
            given = padded
        cells = [tuple(round_up(side, s) // s for side in given) for s in rule.strides]
        if shapes != [(c, *pair) for c, pair in zip(rule.channels, cells, strict=True)]:
            return False
    return True


def _reason(net: Any, trained: Sequence[int]) -> str:
    height, width = trained
    try:
        shapes = map_shapes(net, trained)
    except Exception as error:
        detail = " ".join(str(error).split())[:100]
        return f"gives no feature maps (timm says {detail!r})"
    strides = net.feature_info.reduction()
    for (_, h, w), stride in zip(shapes, strides, strict=False):
        if (h, w) != (-(-height // stride), -(-width // stride)):
            return (
                f"gives a map of {h}x{w} cells for an image of {height}x{width} px, which is not "
                f"its stride of {stride}"
            )
    return f"takes only images of {height}x{width} px"
