"""Multi-scale convolutional attention: aggregation by large depth-wise strips that gate x."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Counts, Width


class MSCA(nn.Module):
    """Multi-scale convolutional attention: strips of three lengths weight every value of x.

    With u = GELU(W1 x) and D depth-wise convolutions: a = D5x5 u,
    y = u * W2 (a + sum over k of Dkx1 D1xk a); out = x + BN(W y). Convolutions alone: a position
    sees a square of 25x25 positions by default, not the whole image. On a map of stride 8 or more
    it is the cheap control for attention.

    Paper: "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation",
    https://arxiv.org/abs/2209.08575
    Reference: Visual-Attention-Network/SegNeXt@f58133c mmseg/models/backbones/mscan.py:
    SpatialAttention. Deviations: a batch norm after the last convolution, as in the other attention
    modules here, instead of one before the block and a learned factor after it, which starts at
    0.01; no bias before that norm; no feed-forward layer; the product and what follows have the
    dtype of the weights even under autocast, because a product of activations overflows float16.

    Args:
        channels: width of the feature map, in and out.
        lengths: lengths k of the strips, odd, one branch each.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, lengths: Counts = (7, 11, 21)) -> None:
        super().__init__()
        for length in lengths:
            if length < 1 or length % 2 == 0:
                raise ValueError(
                    f"lengths ({length}) must be odd to keep the size of the map;"
                    f" choose {length + 1}"
                )
        self.enter = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())
        self.square = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, (1, k), padding=(0, k // 2), groups=channels),
                nn.Conv2d(channels, channels, (k, 1), padding=(k // 2, 0), groups=channels),
            )
            for k in lengths
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.project = ConvNormAct(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weight every value by its surroundings and add the result to x."""
        u = self.enter(x)
        near = self.square(u)
        total = near
        for strip in self.strips:
            total = total + strip(near)
        weights = self.mix(total)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.mix.weight.dtype
            y = self.project(weights.to(dtype) * u.to(dtype))
        return x + y.to(x.dtype)
