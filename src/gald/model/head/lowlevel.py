"""Segmentation head that fuses the context with a fine map of the backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.head.levels import fine_level
from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Count, Share, Width


class LowLevelHead(nn.Module):
    """Head that fuses the context with a fine backbone map, so thin objects keep their outline.

    After the decoder of "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
    Segmentation", https://arxiv.org/abs/1802.02611, section 3.2. Ours: the fine map is chosen by
    its stride, and the two fusing convolutions are plain 3x3.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of x and of the fused map.
        num_classes: number of classes.
        low_stride: stride of the fine map.
        low_channels: width of the projected fine map.
        dropout: probability of dropping a channel before the classifier.
        align_corners: how x is resized to the fine map.

    Shape:
        maps, x (B, C, h, w) -> (B, K, H / low_stride, W / low_stride)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        num_classes: int,
        low_stride: Count = 4,
        low_channels: Width = 48,
        dropout: Share = 0.1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.level = fine_level(in_strides, low_stride)
        self.align_corners = align_corners
        self.low = ConvNormAct(in_channels[self.level], low_channels)
        self.fuse = nn.Sequential(
            ConvNormAct(channels + low_channels, channels, 3),
            ConvNormAct(channels, channels, 3),
        )
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    @override
    def forward(self, maps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        low = self.low(maps[self.level])
        x = resize(x, low.shape[-2:], self.align_corners)
        return self.classify(self.fuse(torch.cat([x, low], dim=1)))
