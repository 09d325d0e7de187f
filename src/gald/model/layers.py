"""Layers shared by several modules."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.options.ranges import Count, Width


def resize(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize a feature map bilinearly; return it unchanged if it already has the size.

    The result keeps the dtype of `x`, with and without autocast.

    Args:
        x: the feature map.
        size: target height and width.
        align_corners: whether to align the centres of the corner pixels instead of their outer
            edges.

    Shape:
        x: (B, C, h, w) -> (B, C, *size)
    """
    size = list(size)
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners).to(x.dtype)


def resizing(old: int, new: int, align_corners: bool, device: torch.device | None = None) -> Tensor:
    """Return the matrix (new, old) of a bilinear resize along one axis, rounded as in torch."""
    unit = torch.eye(old, device=device)[None]
    if new != old:
        unit = F.interpolate(unit, size=new, mode="linear", align_corners=align_corners)
    return unit[0].T


def adaptive_avg_pool(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Compute F.adaptive_avg_pool2d: (B, C, H, W) -> (B, C, *size).

    On a GPU its gradient is summed in no fixed order. If PyTorch must be deterministic, two matrix
    products compute the same.
    """
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return pool_by_matrices(x, (size, size) if isinstance(size, int) else size)
    return F.adaptive_avg_pool2d(x, size)


def pool_by_matrices(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute F.adaptive_avg_pool2d by matrix products: (B, C, H, W) -> (B, C, *size)."""
    rows, columns = (_averaging(old, new, x) for old, new in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def _averaging(old: int, new: int, like: Tensor) -> Tensor:
    """Return the matrix (new, old) in which row i averages the pixels of cell i."""
    cell = torch.arange(new, device=like.device)
    start = cell * old // new
    end = ((cell + 1) * old + new - 1) // new
    pixel = torch.arange(old, device=like.device)
    inside = (pixel >= start[:, None]) & (pixel < end[:, None])
    return inside.to(like.dtype) / (end - start)[:, None].to(like.dtype)


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics to train on a single value per channel.

    nn.BatchNorm2d raises on such an input (a 1x1 map at batch 1, as in globally pooled branches and
    tiny crops), because the batch has no variance. Here that one step normalises as in eval mode
    and does not update the running statistics. If all of training has batch 1, they stay at mean 0
    and variance 1: the layer is then only its affine part, in training and in evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class ConvNormAct(nn.Module):
    """Convolution, batch norm and ReLU: the building block of the modules here.

    Trains on any batch and map size. On a single value per channel, where nn.BatchNorm2d raises, it
    uses the running statistics.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        kernel_size: side of the square kernel, or height and width.
        stride: step of the convolution.
        dilation: distance between kernel taps.
        groups: groups of the convolution; in_channels makes it depth-wise.
        bias: whether the convolution has a bias although a norm follows, as in the authors' code.
        act: whether a ReLU follows.
        padding: zeros on each side; None keeps the size at stride 1.

    Shape:
        x: (B, in_channels, h, w) -> (B, out_channels, h', w')
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        act: bool = True,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        same = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=same if padding is None else padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.norm = _BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()
        self.strided_depthwise = stride > 1 and groups == in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, apply the ReLU."""
        # On CPU the bfloat16 backward pass of a strided depth-wise convolution takes several times
        # as long as in float32, so the convolution runs outside autocast there.
        if self.strided_depthwise and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                x = self.conv(x.float())
        else:
            x = self.conv(x)
        return self.act(self.norm(x))


class AtStride(nn.Module):
    """Wrapper that runs a module on a smaller map: strided depth-wise conv, module, resize back.

    The authors' code has it around the global aggregation, which makes attention cheaper. Their
    figure does not show it, so here it is a separate wrapper for any aggregation.

    Paper: "Global Aggregation then Local Distribution in Fully Convolutional Networks",
    https://arxiv.org/abs/1909.07229
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:GALDBlock (`down`). Exact with
    padding=0, align_corners=True; the default pads by 1, because the unpadded convolution with
    aligned corners shifts the result by up to two pixels at the borders.

    Args:
        module: module to run on the smaller map; it must keep the shape.
        channels: width of the feature map.
        stride: downsampling factor.
        padding: zeros on each side of the convolution, 0 or 1.
        align_corners: how the result is resized back.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        module: nn.Module,
        channels: Width,
        stride: Count = 2,
        padding: Literal[0, 1] = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if padding not in (0, 1):
            raise ValueError(
                f"padding ({padding}) must be 0 or 1; padding=1 keeps borders in place"
            )
        self.padding = padding
        self.align_corners = align_corners
        self.down = ConvNormAct(
            channels, channels, 3, stride=stride, groups=channels, bias=True, padding=padding
        )
        self.module = module
        self.reads = getattr(module, "reads", None)

    def forward(self, x: Tensor, *extra: Tensor) -> Tensor:
        """Downsample x, run the module with any extra inputs, resize back."""
        h, w = x.shape[-2:]
        if self.padding == 0 and min(h, w) < 3:
            raise ValueError(
                f"feature map ({h}x{w}) must be at least 3x3 for AtStride with padding=0;"
                " set padding=1 or use larger images"
            )
        return resize(self.module(self.down(x), *extra), (h, w), self.align_corners).to(x.dtype)
