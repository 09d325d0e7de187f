"""Any timm network as a pyramid of feature maps, dilated as context modules want it."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.model.weights import load_weights

# In [0, 1] as the images are: what is 1 in 0..255 is 1/255 here.
_BGR = {
    "mean": (104.00698793 / 255, 116.66876762 / 255, 122.67891434 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
}


class TimmBackbone(nn.Module):
    """Turns an image into feature maps, finest first, with any timm model.

    Takes what a camera or a loader gives (RGB as uint8, or float in [0, 1]) and normalises on the
    device with the mean and standard deviation that timm records for the model, so that a data
    config never knows about backbones.

    Models that cut the image into patches (ViT, Swin) need a size that the patch divides: the
    image is resized to the nearest larger such size, which keeps the maps aligned with the image
    at a scale change of less than one patch.

    Args:
        name: timm model name.
        weights: null for random, `timm` for timm's hub, `package:NAME` for an installed package,
            or a file; see `gald.model.weights`.
        output_stride: stride of the deepest map; smaller than the model's own means dilation
            instead of striding. Null keeps the model's own.
        multi_grid: factors on the dilation of the blocks of the last stage, as (1, 2, 4) in
            GALD-DGCNet@be7ebfe libs/models/GALDNet.py; repeated when the stage has more blocks.
        dilate_first_block: whether the first block of a dilated stage has the stage's own dilation,
            as in GALD-DGCNet@be7ebfe; false keeps that of the stage before, as timm does.
        ceil_mode: round map sizes up at the max-pool of a ResNet stem, as the authors do.
        levels: which of timm's feature levels to use, consecutive; null uses all. Leaving out
            the deep ones makes a backbone that sees little context.
        input: what the first convolution reads. `rgb` is timm's normalisation; `bgr` the channels
            in the order of OpenCV, in 0..255 minus a mean and not scaled, which the scripts of
            GALD-DGCNet@be7ebfe give where they do not say --rgb (train_distribute.py).

    Shape:
        image: (B, 3, H, W) -> tuple of (B, channels[i], ~H/strides[i], ~W/strides[i])
    """

    net: Any  # timm's feature extractors share attributes, not a type
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        output_stride: int | None = None,
        multi_grid: Sequence[int] | None = None,
        dilate_first_block: bool = False,
        ceil_mode: bool = False,
        levels: Sequence[int] | None = None,
        input: Literal["rgb", "bgr"] = "rgb",
    ) -> None:
        super().__init__()
        if input not in ("rgb", "bgr"):
            raise ValueError(f"input is {input!r}; choose rgb or bgr")
        if levels is not None and list(levels) != list(range(levels[0], levels[0] + len(levels))):
            raise ValueError(
                f"levels ({list(levels)}) must be consecutive, as [0, 1, 2]; "
                "set model.backbone.levels=null to use all"
            )
        self.net = _create(name, output_stride, levels, pretrained=weights == "timm")
        if weights not in (None, "timm"):
            load_weights(self.net, weights)

        info = self.net.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        if output_stride is not None and self.strides[-1] != output_stride:
            raise ValueError(_cannot_dilate(name, output_stride, self.strides[-1]))
        if dilate_first_block or multi_grid is not None:
            _set_dilation(self.net, name, dilate_first_block, tuple(multi_grid or (1,)))
        if ceil_mode:
            _set_ceil_mode(self.net, name)

        self.patch = _patch_size(self.net)
        self.channels_last = getattr(self.net, "output_fmt", None) == Format.NHWC
        self.flip = input == "bgr"
        config = _BGR if self.flip else self.net.pretrained_cfg
        for key in ("mean", "std"):
            value = torch.tensor(config[key], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(key, value, persistent=False)

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if not image.is_floating_point():
            image = image.float() / 255
        if self.flip:
            image = image.flip(-3)
        x = (image - self.mean) / self.std
        size = [-(-side // self.patch) * self.patch for side in x.shape[-2:]]
        if size != list(x.shape[-2:]):
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        maps = self.net(x)
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return tuple(maps)


def _create(
    name: str, output_stride: int | None, levels: Sequence[int] | None, pretrained: bool
) -> Any:
    """Build the feature extractor for any image size; timm spells that option per family."""
    chosen: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    if levels is not None:
        chosen["out_indices"] = tuple(levels)
    any_size: tuple[dict[str, Any], ...] = (
        {"dynamic_img_size": True},
        {"strict_img_size": False},
        {},
    )
    for options in any_size:
        try:
            return timm.create_model(
                name, pretrained=pretrained, features_only=True, **chosen, **options
            )
        except TypeError as error:
            if not any(option in str(error) for option in options):
                if output_stride is not None and "output_stride" in str(error):
                    raise ValueError(_cannot_dilate(name, output_stride)) from error
                raise
        except OSError as error:
            raise FileNotFoundError(
                f"the weights of {name} cannot be fetched from timm's hub; set "
                "model.backbone.weights to a file, package:NAME or null, or connect to the network"
            ) from error
        except AssertionError as error:
            if output_stride is None:
                raise
            raise ValueError(_cannot_dilate(name, output_stride)) from error
        except RuntimeError as error:
            if "Unknown model" not in str(error):
                raise
            near = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
            raise ValueError(f"timm knows no model {name!r}; {hint}") from error
    raise AssertionError("the last option set is empty, so create_model returned or raised")


def _cannot_dilate(name: str, wanted: int, has: int | None = None) -> str:
    reached = f" (it stays at {has})" if has else ""
    return (
        f"{name} cannot be dilated to output_stride {wanted}{reached}; "
        "set model.backbone.output_stride=null and recover resolution with model/neck=fpn"
    )


def _set_dilation(
    net: Any,
    name: str,
    dilate_first_block: bool,
    multi_grid: tuple[int, ...],
) -> None:
    """Give the blocks of dilated stages the dilation that the authors' networks use."""
    reductions = net.feature_info.reduction()
    last = len(reductions) - 1
    changed = False
    for index, reduction in enumerate(reductions):
        # Undilated, each level halves the one before; what is missing became dilation.
        dilation = reductions[0] * 2**index // reduction
        if dilation == 1:
            continue
        for number, block in enumerate(_stage_blocks(net, index)):
            factor = multi_grid[number % len(multi_grid)] if index == last else 1
            keep_first = number == 0 and not dilate_first_block
            for conv in block.modules():
                if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] > 1:
                    base = conv.dilation[0] if keep_first else dilation
                    _dilate(conv, base * factor)
                    changed = True
    if not changed:
        raise ValueError(
            f"{name} has no dilated stage, so multi_grid and dilate_first_block do nothing; "
            "set model.backbone.output_stride to 8 or 16, or leave both out"
        )


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    conv.dilation = (dilation, dilation)
    if tuple(conv.padding) != (0, 0):  # timm's own "same" convolutions pad in their forward
        side = dilation * (conv.kernel_size[0] - 1) // 2
        conv.padding = (side, side)


def _stage_blocks(net: Any, index: int) -> list[nn.Module]:
    """The residual blocks between feature level `index - 1` and `index`."""
    names = net.feature_info.module_name()
    prefix, end = _split(names[index])
    start = _split(names[index - 1])[1] if index else -1
    containers = [
        module
        for name, module in net.named_modules()
        if re.fullmatch(rf"{prefix}[._]?\d+", name) and start < _split(name)[1] <= end
    ]
    return [b for c in containers for b in getattr(c, "blocks", c).children()]


def _split(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\w*?)[._]?(\d+)", name)
    return (match[1], int(match[2])) if match else (name, -1)


def _set_ceil_mode(net: nn.Module, name: str) -> None:
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    if not pools:
        raise ValueError(f"{name} has no max-pool; set model.backbone.ceil_mode=false")
    for pool in pools:
        pool.ceil_mode = True


def _patch_size(net: nn.Module) -> int:
    for module in net.modules():
        if type(module).__name__.startswith("PatchEmbed") and hasattr(module, "patch_size"):
            return int(module.patch_size[0])  # ty: ignore[not-subscriptable]
    return 1
