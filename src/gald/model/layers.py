"""Layers that more than one module uses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Bring a feature map to a given height and width, bilinearly; a no-op when it has them.

    The result keeps the dtype of `x`, with autocast or without.

    Args:
        x: the feature map.
        size: wanted height and width.
        align_corners: whether corner pixels, not corner edges, are matched.

    Shape:
        x: (B, C, h, w) -> (B, C, *size)
    """
    size = list(size)
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners).to(x.dtype)


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that trains on a single value per channel with its running statistics.

    nn.BatchNorm2d refuses such an input (a 1x1 map at batch 1: every globally pooled branch, every
    small crop), because the batch has no variance. Here that one step normalises as in eval mode
    and leaves the running statistics alone. With batch 1 throughout they stay at mean 0, variance
    1: the layer is its affine part, equal in training and evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class ConvNormAct(nn.Module):
    """Convolution, batch norm, ReLU: the unit that every module here is built of.

    Trains on any batch and map size, a single value per channel included (running statistics
    then; nn.BatchNorm2d raises).

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        kernel_size: side of the square kernel.
        stride: step of the convolution.
        dilation: distance between kernel taps.
        groups: blocked connections; in_channels makes the convolution depth-wise.
        bias: whether the convolution has a bias although a norm follows, as the authors' do.
        act: whether a ReLU follows.
        padding: zeros on each side; None keeps the size at stride 1.

    Shape:
        x: (B, in_channels, h, w) -> (B, out_channels, h', w')
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        act: bool = True,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2 if padding is None else padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.norm = _BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()
        self.strided_depthwise = stride > 1 and groups == in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, rectify."""
        # On CPU the bfloat16 backward of a strided depth-wise convolution takes several times as
        # long as the float32 one, so autocast must not touch it there.
        if self.strided_depthwise and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                x = self.conv(x.float())
        else:
            x = self.conv(x)
        return self.act(self.norm(x))


class AtStride(nn.Module):
    """Runs a module on a smaller map: strided depth-wise convolution, module, bilinear back.

    The authors' code puts it around the global aggregation, which makes attention cheaper; their
    figure does not show it, so it is a wrapper here and goes around any aggregation.

    Paper: "Global Aggregation then Local Distribution in Fully Convolutional Networks",
    https://arxiv.org/abs/1909.07229
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:GALDBlock (`down`). Exact with
    padding=0, align_corners=True; the default pads by 1, because the unpadded convolution with
    aligned corners shifts the result by up to two pixels at the borders.

    Args:
        module: what runs on the smaller map; keeps shape.
        channels: width of the feature map.
        stride: how many times smaller the map is.
        padding: zeros on each side of the convolution, 0 or 1.
        align_corners: how the way back resizes.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        module: nn.Module,
        channels: int,
        stride: int = 2,
        padding: int = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if padding not in (0, 1):
            raise ValueError(f"padding ({padding}) must be 0 or 1; 1 keeps borders in place")
        self.padding = padding
        self.align_corners = align_corners
        self.down = ConvNormAct(
            channels, channels, 3, stride=stride, groups=channels, bias=True, padding=padding
        )
        self.module = module
        self.reads = getattr(module, "reads", None)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Shrink, run the module, which may read other inputs too, grow back."""
        h, w = x.shape[-2:]
        if self.padding == 0 and min(h, w) < 3:
            raise ValueError(
                f"feature map ({h}x{w}) must be at least 3x3 for AtStride with padding=0;"
                " set padding=1 or use larger images"
            )
        return resize(self.module(self.down(x), *others), (h, w), self.align_corners).to(x.dtype)
