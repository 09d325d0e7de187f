"""Segmentation head of SegFormer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.head.levels import levels_above
from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Count, Share, Width


class SegFormerMLPHead(nn.Module):
    """Head without spatial kernels: projects every level, resizes all to the finest, fuses them.

    Paper: "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
    https://arxiv.org/abs/2105.15203, section 3.2
    Reference: NVlabs/SegFormer mmseg/models/decode_heads/segformer_head.py:SegFormerHead.
    Deviation: x takes the place of the deepest map, so it has passed the Segmentor's `reduce`, a
    3x3 convolution, and the context slots.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of x and of every projected level.
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
        widths = [*(in_channels[i] for i in self.levels), channels]
        self.project = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.fuse = ConvNormAct(channels * len(widths), channels)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    @override
    def forward(self, maps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        inputs = [*(maps[i] for i in self.levels), x]
        size = inputs[0].shape[-2:]
        levels = [
            resize(project(level), size, self.align_corners)
            for project, level in zip(self.project, inputs, strict=True)
        ]
        return self.classify(self.fuse(torch.cat(levels[::-1], dim=1)))  # deepest first
