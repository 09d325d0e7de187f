"""Mask distribution: the published local distribution, one factor per channel and position."""

from typing import Literal

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Count, Width

_MOST_STEPS = 16  # a mask of one cell for a map of 65536 cells a side


class Mask(nn.Module):
    """Mask (published LD): scales each value of the context by a mask computed from the context.

    M = sigmoid(up(phi(context))), with phi `steps` depth-wise 3x3 convolutions of stride 2;
    out = context * (1 + M). The local feature x is not used.

    Paper: "Global Aggregation then Local Distribution in Fully Convolutional Networks",
    https://arxiv.org/abs/1909.07229
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:LocalAttenModule with padding=0,
    align_corners=True (model/ld=mask_official); the end of GALDBlock, which adds the context once
    more than the paper's figure, is model.add_context_twice=true. The default pads by 1: the
    unpadded convolutions with aligned corners misplace the mask by up to nine pixels at the borders
    and need maps of 15 px. Unlike the reference, it trains on one cell at batch 1 (see
    ConvNormAct).

    Args:
        channels: width of the feature maps.
        steps: strided convolutions, each halving the resolution of the mask; at most 16.
        padding: zeros on each side of every convolution, 0 or 1.
        pre_sigmoid_relu: whether the last convolution has a ReLU as in the reference, which keeps
            M in [0.5, 1); without it M is in (0, 1).
        align_corners: how the mask is resized.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        channels: Width,
        steps: Count = 3,
        padding: Literal[0, 1] = 1,
        pre_sigmoid_relu: bool = True,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= steps <= _MOST_STEPS:
            raise ValueError(
                f"steps ({steps}) must be at least 1 and at most {_MOST_STEPS}; the published mask "
                "has steps=3"
            )
        if padding not in (0, 1):
            raise ValueError(
                f"padding ({padding}) must be 0 or 1; padding=1 keeps borders in place"
            )
        self.padding = padding
        self.align_corners = align_corners
        self.phi = nn.Sequential(
            *(
                ConvNormAct(
                    channels,
                    channels,
                    3,
                    stride=2,
                    groups=channels,
                    bias=True,
                    act=step < steps - 1 or pre_sigmoid_relu,
                    padding=padding,
                )
                for step in range(steps)
            )
        )

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the mask M of out = context * (1 + M), per position and channel.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation; not used.

        Shape:
            context, x: (B, C, h, w) -> (B, C, h, w)
        """
        h, w = context.shape[-2:]
        minimum = 2 ** (len(self.phi) + 1) - 1 if self.padding == 0 else 1
        if min(h, w) < minimum:
            raise ValueError(
                f"feature map ({h}x{w}) must be at least {minimum}x{minimum} for Mask with"
                f" padding=0 and steps={len(self.phi)}; set padding=1, or use fewer steps or larger"
                " images"
            )
        return torch.sigmoid(resize(self.phi(context), (h, w), self.align_corners))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Scale the context by its mask."""
        return (context * (1 + self.distribution_map(context, x))).to(context.dtype)
