"""Segmentation head of UPerNet."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.head.levels import levels_above
from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Count, Share, Width


class UPerHead(nn.Module):
    """Head that adds x top-down to every finer map and fuses all levels at the finest one.

    With `model/ga=psp model/ld=none model/neck=none` the whole is a UPerNet for semantic
    segmentation, but for the Segmentor's `reduce` in front of the pooling. Behind `model/neck=fpn`,
    which has a top-down path of its own, the maps are joined twice.

    Paper: "Unified Perceptual Parsing for Scene Understanding", https://arxiv.org/abs/1807.10221,
    section 3
    Reference: open-mmlab/mmsegmentation@0d003bc mmseg/models/decode_heads/uper_head.py:UPerHead,
    from its laterals on. Deviation: x takes the place of the output of the pyramid pooling.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of x and of every level.
        num_classes: number of classes.
        min_stride: maps with a smaller stride are not read.
        dropout: probability of dropping a channel before the classifier.
        align_corners: how levels are resized.

    Shape:
        maps, x (B, C, h, w) -> (B, K, h', w') at the size of the finest map that is read
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        num_classes: int,
        min_stride: Count = 4,
        dropout: Share = 0.1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.levels = levels_above(in_strides, min_stride)
        self.align_corners = align_corners
        self.lateral = nn.ModuleList(ConvNormAct(in_channels[i], channels) for i in self.levels)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in self.levels)
        self.fuse = ConvNormAct(channels * (len(self.levels) + 1), channels, 3)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    @override
    def forward(self, maps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        sums = [lateral(maps[i]) for i, lateral in zip(self.levels, self.lateral, strict=True)]
        above = x
        for i in reversed(range(len(sums))):
            sums[i] = sums[i] + resize(above, sums[i].shape[-2:], self.align_corners)
            above = sums[i]
        levels = [smooth(s) for smooth, s in zip(self.smooth, sums, strict=True)] + [x]
        size = levels[0].shape[-2:]
        levels = [resize(level, size, self.align_corners) for level in levels]
        return self.classify(self.fuse(torch.cat(levels, dim=1)))
