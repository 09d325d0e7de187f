"""Neck between backbone and context slots: none, or a feature pyramid for fixed strides."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Count, Width


class NoNeck(nn.Module):
    """Neck that returns the backbone's maps unchanged.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int]) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = tuple(in_channels)
        self.strides: tuple[int, ...] = tuple(in_strides)

    @override
    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return maps


class FPN(nn.Module):
    """Feature pyramid: brings the deep maps of a backbone that cannot be dilated to a finer grid.

    Top-down sums as in "Feature Pyramid Networks for Object Detection",
    https://arxiv.org/abs/1612.03144, section 3. Ours: all levels are then resized to the one that
    `stride` selects, concatenated and fused by a 3x3 convolution. The fused map is appended as the
    last map, so that the context slots read semantic features at a useful resolution for any
    backbone strides.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of every output map.
        stride: the fused map has the size of the coarsest level with at most this stride.
        align_corners: how maps are resized; the same in the whole model.

    Shape:
        tuple of L maps -> tuple of L + 1 maps, all `channels` wide, the last one fused
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        stride: Count = 8,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.level = max((i for i, s in enumerate(in_strides) if s <= stride), default=0)
        self.lateral = nn.ModuleList(ConvNormAct(c, channels) for c in in_channels)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in in_channels)
        self.fuse = ConvNormAct(channels * len(in_channels), channels, 3)
        self.channels: tuple[int, ...] = (channels,) * (len(in_channels) + 1)
        self.strides: tuple[int, ...] = (*in_strides, in_strides[self.level])

    @override
    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sums = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        for i in range(len(sums) - 2, -1, -1):
            sums[i] = sums[i] + F.interpolate(sums[i + 1], sums[i].shape[-2:], mode="nearest")
        levels = [smooth(s) for smooth, s in zip(self.smooth, sums, strict=True)]
        size = levels[self.level].shape[-2:]
        fused = self.fuse(torch.cat([resize(m, size, self.align_corners) for m in levels], dim=1))
        return (*levels, fused)
