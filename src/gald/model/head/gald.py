"""The authors' segmentation head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.layers import ConvNormAct
from gald.options.ranges import Width


class GALDHead(nn.Module):
    """The authors' head: refine x, concatenate the deepest map, fuse, classify.

    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:GALDHead (convb and bottleneck; its
    conva is the Segmentor's `reduce`).

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of x.
        num_classes: number of classes.

    Shape:
        maps, x (B, C, h, w) -> (B, K, h, w)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.refine = ConvNormAct(channels, channels, 3)
        self.fuse = ConvNormAct(in_channels[-1] + channels, channels, 3)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    @override
    def forward(self, maps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        x = self.refine(x)
        return self.classify(self.fuse(torch.cat([maps[-1], x], dim=1)))
