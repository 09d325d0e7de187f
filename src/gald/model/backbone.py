"""Backbone: any timm network as a pyramid of feature maps, with optional dilation."""

import difflib
import functools
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.model.freezing import batch_norms, freeze, frozen_modules
from gald.model.grad_checkpointing import GradCheckpointing
from gald.model.image_size import OTHER, SizeRule, channels_first, find_size_rule, round_up
from gald.model.stages import layer_numbers
from gald.model.weights import load_weights
from gald.options.ranges import Count, Counts, Length, Whole

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

    An image may have any size. Patch-based models (ViT, Swin) need a multiple of the patch size, so
    the image is resized up to the nearest such size: the maps stay aligned with the image, and the
    size changes by less than one patch. Models that would drop the last rows or columns of an odd
    size, or that cannot run on it (ConvNeXt, DenseNet, HRNet), get black pixels at the right and at
    the bottom, as crops do in training; so do images that are too small for a model (PVTv2). The
    maps are cut back to the cells of the image. Models with windows of a fixed number of cells
    (MaxViT, HaloNet) are padded to a multiple of the size that they were made for, such as 224. A
    model that only takes images of one size is refused.

    Args:
        name: timm model name, one of `timm.list_models()`; not one of a hub or a folder.
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
        frozen: which weights do not train: none (false), all (true), or those of the stem and of
            the first N stages, as `frozen_stages` in mmseg. The stages are those of timm's
            `group_matcher`; in a ViT each block is one. A frozen part stays in evaluation mode, so
            its batch norm keeps its running statistics and its dropout is off.
        frozen_bn: whether batch norm of the whole backbone keeps its running statistics while its
            scales and shifts train, as `norm_eval` in mmseg.
        grad_checkpointing: whether training computes activations again in the backward pass instead
            of keeping them: less memory, more time, the same gradients.

    Attributes:
        channels: width of every map.
        strides: stride of every map, as measured.

    Shape:
        image: (B, 3, H, W) -> tuple of (B, channels[i], ceil(H/strides[i]), ceil(W/strides[i]));
            with ceil_mode some sizes give one cell more

    Raises:
        ValueError: there is no such model, or it cannot do what an option asks for; the message
            names the model and the remedy.
        FileNotFoundError: the weights are not there, or timm's hub cannot be reached.
    """

    net: Any  # timm's feature extractors share attributes, not a type
    mean: Tensor
    std: Tensor

    def __init__(  # noqa: PLR0913  every option of a backbone is a key of its own
        self,
        name: str,
        weights: str | None = None,
        output_stride: Count | None = None,
        multi_grid: Counts | None = None,
        dilate_first_block: bool = False,
        ceil_mode: bool = False,
        levels: Annotated[Sequence[Whole], Length(1)] | None = None,
        input: Literal["rgb", "bgr"] = "rgb",
        frozen: bool | Whole = False,
        frozen_bn: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if input not in ("rgb", "bgr"):
            raise ValueError(
                f"model.backbone.input is {input!r}; set model.backbone.input to rgb or bgr"
            )
        if ":" in name or "/" in name:
            raise ValueError(
                f"model.backbone.name is {name!r}, which would be looked up on a hub or in a "
                "folder each time the network is loaded; set model.backbone.name to a model of "
                "timm.list_models(), and model.backbone.weights to a file"
            )
        if levels is not None and list(levels) != list(range(levels[0], levels[0] + len(levels))):
            raise ValueError(
                f"levels ({list(levels)}) must be consecutive, for example [0, 1, 2]; "
                "set model.backbone.levels=null to use all levels"
            )
        levels = None if levels is None else tuple(levels)
        self.net = _create(name, output_stride, levels, pretrained=weights == "timm")
        if weights not in (None, "timm"):
            load_weights(self.net, weights)

        self.size_rule = _size_rule(name, output_stride, levels)
        self.channels: tuple[int, ...] = self.size_rule.channels
        self.strides: tuple[int, ...] = self.size_rule.strides
        if output_stride is not None and self.strides[-1] != output_stride:
            raise ValueError(_cannot_dilate(name, output_stride, self.strides[-1]))
        if dilate_first_block or multi_grid is not None:
            _set_dilation(self.net, name, dilate_first_block, tuple(multi_grid or (1,)))
        if ceil_mode:
            _set_ceil_mode(self.net, name)

        self.flip = input == "bgr"
        config = _BGR if self.flip else self.net.pretrained_cfg
        for key in ("mean", "std"):
            value = torch.tensor(config[key], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(key, value, persistent=False)

        # Some transformers keep tables of their weights in evaluation until the mode is set again,
        # but the weights may change before that.
        self.tables = [m for m in self.net.modules() if hasattr(m, "attention_bias_cache")]
        self.name = name
        self.random = weights is None
        self.frozen = frozen
        self.frozen_bn = frozen_bn
        freeze(self.net, name, frozen)
        if frozen_bn and not batch_norms(self.net):
            raise ValueError(
                f"{name} has no batch norm, so frozen_bn has no effect; "
                "set model.backbone.frozen_bn=false"
            )
        self.kept_in_eval = frozen_modules(self.net)
        make = functools.partial(_create, name, output_stride, levels, False)
        self.checkpointing = GradCheckpointing(make, name) if grad_checkpointing else None
        self.train()

    @override
    def train(self, mode: bool = True) -> "TimmBackbone":
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.kept_in_eval:
            self.net.get_submodule(name).eval()
        if self.frozen_bn:
            for norm in batch_norms(self.net):
                norm.eval()
        return self

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if not image.is_floating_point():
            image = image.float() / 255
        size = tuple(image.shape[-2:])
        height, width = self.size_rule.padded(size)
        if (height, width) != size:
            image = F.pad(image, (0, width - size[1], 0, height - size[0]))
        if self.flip:
            image = image.flip(-3)
        x = (image - self.mean) / self.std
        if self.size_rule.resizes:
            whole = [round_up(side, self.size_rule.multiple) for side in (height, width)]
            if whole != [height, width]:
                x = F.interpolate(x, whole, mode="bilinear", align_corners=False)
        for module in self.tables:
            module.attention_bias_cache.clear()
        if self.checkpointing is None:
            maps = self.net(x)
        else:
            maps = self.checkpointing.run(self.net, x, self.training)
        maps = channels_first(self.net, maps)
        if (height, width) != size:
            cells = [[round_up(side, s) // s for side in size] for s in self.strides]
            maps = [m[..., :h, :w] for m, (h, w) in zip(maps, cells, strict=True)]
        return tuple(maps)

    def layer_numbers(self) -> dict[str, int]:
        """Number the layers of every parameter, from 0 for the stem, as timm groups them.

        Raises:
            ValueError: timm does not group the layers of this model.
        """
        return {f"net.{key}": n for key, n in layer_numbers(self.net, self.name).items()}


@functools.lru_cache(maxsize=256)
def _size_rule(name: str, output_stride: int | None, levels: tuple[int, ...] | None) -> SizeRule:
    return find_size_rule(lambda: _create(name, output_stride, levels, pretrained=False), name)


def _create(
    name: str, output_stride: int | None, levels: Sequence[int] | None, pretrained: bool
) -> Any:
    """Create timm's feature extractor so that it accepts any image size, if it can."""
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
        except OSError as error:
            raise FileNotFoundError(
                f"cannot download the weights of {name} from timm's hub; connect to the network, "
                "or set model.backbone.weights to a file, package:NAME or null"
            ) from error
        except Exception as error:  # of any type: timm has no common one
            if isinstance(error, TypeError) and any(option in str(error) for option in options):
                continue
            raise ValueError(_cannot_build(name, output_stride, levels, error)) from error
    raise AssertionError(
        "unreachable: with the last, empty option set create_model returns or raises"
    )


def _cannot_build(
    name: str, output_stride: int | None, levels: Sequence[int] | None, error: Exception
) -> str:
    """Return the sentence for an error of timm.create_model."""
    if "Unknown model" in str(error):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        return f"timm has no model {name!r}; {hint}"
    if output_stride is not None and (
        isinstance(error, AssertionError) or "output_stride" in str(error)
    ):
        return _cannot_dilate(name, output_stride)
    if levels is not None and isinstance(error, AssertionError | IndexError):
        return (
            f"{name} has no levels {list(levels)}; "
            "set model.backbone.levels=null to use all its levels"
        )
    detail = " ".join(str(error).split())[:100] or type(error).__name__
    return f"{name} gives no feature maps (timm says {detail!r}); {OTHER}"


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
