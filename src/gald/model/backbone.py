"""Backbone: any timm network as a pyramid of feature maps, with optional dilation."""

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

# Scaled to images in [0, 1]: a value v in 0..255 is v / 255 here.
_BGR = {
    "mean": (104.00698793 / 255, 116.66876762 / 255, 122.67891434 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
}


class TimmBackbone(nn.Module):
    """Backbone from any timm model: turns an image into feature maps, finest first.

    The input is RGB, as uint8 or as float in [0, 1]. The forward pass normalises it on the device
    with the mean and standard deviation that timm records for the model, so that a data config does
    not depend on the backbone.

    Patch-based models (ViT, Swin) need an image size that is a multiple of the patch size. The
    image is resized up to the nearest such size: the maps stay aligned with the image, and the size
    changes by less than one patch.

    Args:
        name: timm model name.
        weights: null for random initialisation, `timm` for timm's hub, `package:NAME` for an
            installed package, or a file; see `gald.model.weights`.
        output_stride: stride of the deepest map. A value below the model's own stride replaces
            striding by dilation. Null keeps the model's own stride.
        multi_grid: dilation factors for the blocks of the last stage, such as (1, 2, 4) in
            GALD-DGCNet@be7ebfe libs/models/GALDNet.py; repeated if the stage has more blocks.
        dilate_first_block: whether the first block of a dilated stage has the dilation of its own
            stage, as in GALD-DGCNet@be7ebfe; false keeps that of the previous stage, as in timm.
        ceil_mode: round map sizes up in the max-pool of a ResNet stem, as the authors do.
        levels: timm's feature levels to use, consecutive; null uses all. Without the deep levels
            the backbone sees little context.
        input: input format of the first convolution. `rgb` uses timm's normalisation. `bgr` uses
            OpenCV's channel order and values in 0..255 minus a mean, not scaled, as the scripts of
            GALD-DGCNet@be7ebfe do without --rgb (train_distribute.py).

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
            raise ValueError(
                f"model.backbone.input is {input!r}; set model.backbone.input to rgb or bgr"
            )
        if levels is not None and list(levels) != list(range(levels[0], levels[0] + len(levels))):
            raise ValueError(
                f"levels ({list(levels)}) must be consecutive, for example [0, 1, 2]; "
                "set model.backbone.levels=null to use all levels"
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
    """Create timm's feature extractor so that it accepts any image size."""
    kwargs: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    if levels is not None:
        kwargs["out_indices"] = tuple(levels)
    # The option that allows any image size has another name in each model family.
    any_size: tuple[dict[str, Any], ...] = (
        {"dynamic_img_size": True},
        {"strict_img_size": False},
        {},
    )
    for options in any_size:
        try:
            return timm.create_model(
                name, pretrained=pretrained, features_only=True, **kwargs, **options
            )
        except TypeError as error:
            if not any(option in str(error) for option in options):
                if output_stride is not None and "output_stride" in str(error):
                    raise ValueError(_cannot_dilate(name, output_stride)) from error
                raise
        except OSError as error:
            raise FileNotFoundError(
                f"cannot download the weights of {name} from timm's hub; connect to the network, "
                "or set model.backbone.weights to a file, package:NAME or null"
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
            raise ValueError(f"timm has no model {name!r}; {hint}") from error
    raise AssertionError(
        "unreachable: with the last, empty option set create_model returns or raises"
    )


def _cannot_dilate(name: str, output_stride: int, actual: int | None = None) -> str:
    """Return the error message for a model that cannot reach an output stride by dilation."""
    detail = f" (its stride stays {actual})" if actual else ""
    return (
        f"{name} cannot be dilated to output_stride {output_stride}{detail}; "
        "set model.backbone.output_stride=null and use model/neck=fpn to recover resolution"
    )


def _set_dilation(
    net: Any,
    name: str,
    dilate_first_block: bool,
    multi_grid: tuple[int, ...],
) -> None:
    """Set the dilation of the blocks in dilated stages as in the authors' networks."""
    reductions = net.feature_info.reduction()
    last = len(reductions) - 1
    changed = False
    for index, reduction in enumerate(reductions):
        # Without dilation each level halves the resolution; dilation replaces the missing factor.
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
            f"{name} has no dilated stage, so multi_grid and dilate_first_block have no effect; "
            "set model.backbone.output_stride to 8 or 16, or remove both options"
        )


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    conv.dilation = (dilation, dilation)
    if tuple(conv.padding) != (0, 0):  # timm's "same" convolutions pad in forward()
        side = dilation * (conv.kernel_size[0] - 1) // 2
        conv.padding = (side, side)


def _stage_blocks(net: Any, index: int) -> list[nn.Module]:
    """Return the residual blocks between feature levels `index - 1` and `index`."""
    names = net.feature_info.module_name()
    prefix, end = _split_level(names[index])
    start = _split_level(names[index - 1])[1] if index else -1
    containers = [
        module
        for name, module in net.named_modules()
        if re.fullmatch(rf"{prefix}[._]?\d+", name) and start < _split_level(name)[1] <= end
    ]
    return [b for c in containers for b in getattr(c, "blocks", c).children()]


def _split_level(name: str) -> tuple[str, int]:
    """Split a module name into prefix and trailing number; the number is -1 if there is none."""
    match = re.fullmatch(r"(\w*?)[._]?(\d+)", name)
    return (match[1], int(match[2])) if match else (name, -1)


def _set_ceil_mode(net: nn.Module, name: str) -> None:
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    if not pools:
        raise ValueError(
            f"{name} has no max-pool for ceil_mode; set model.backbone.ceil_mode=false"
        )
    for pool in pools:
        pool.ceil_mode = True


def _patch_size(net: nn.Module) -> int:
    for module in net.modules():
        if type(module).__name__.startswith("PatchEmbed") and hasattr(module, "patch_size"):
            return int(module.patch_size[0])  # ty: ignore[not-subscriptable]
    return 1
