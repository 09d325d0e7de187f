"""Segmentation head of a linear classifier."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from gald.options.ranges import Width


class LinearHead(nn.Module):
    """Head that reads x alone: each position is normalised over its channels and classified.

    The least that a head can be, so that scores show what the feature holds.

    Paper: "How to Benchmark Vision Foundation Models for Semantic Segmentation?",
    https://arxiv.org/abs/2404.12172
    Reference: tue-mps/benchmark-vfm-ss@02943e6 models/linear_decoder.py:LinearDecoder. Deviation:
    it reads x, behind the Segmentor's `reduce` and the context slots, and not the backbone's last
    tokens; a probe of the backbone itself has no such convolution before it.

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
        self.norm = nn.LayerNorm(channels)
        self.classify = nn.Linear(channels, num_classes)

    @override
    def forward(self, maps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return self.classify(self.norm(x.movedim(1, -1))).movedim(-1, 1)
