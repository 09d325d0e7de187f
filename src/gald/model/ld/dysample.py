"""Dynamic sampling: every position reads the context at one predicted offset per channel group."""

import torch
from torch import Tensor, nn

from gald.model.warping import own_weight, warp
from gald.options.ranges import Count, Width


class DySample(nn.Module):
    """Dynamic sampling: every position reads the context at a predicted place, in channel groups.

    With d = W [context, x] / 2, one offset in pixels per position and group, W a 1x1 convolution:
    out(p) = context(p + d(p)), read bilinearly. A position beside an edge can take the context from
    the inside of its own object; nothing is averaged or mixed. Offsets start near 0, so the output
    starts as the context.

    Paper: "Learning to Upsample by Learning to Sample", https://arxiv.org/abs/2308.15085
    Reference: tiny-smart/dysample@4d25e29 dysample.py:DySample, style `lp` without dynamic scope.
    Deviations: DySample upsamples, while context and x have one size here. So it is its offsets at
    a ratio of 1: the grid of initial places, which spreads the pixels of a cell, is the position
    itself; the factor of the offsets is 1/2 instead of 1/4 at a ratio of 2, in both cases half the
    distance of the samples; the offsets are predicted from the context and x, since the context
    alone has lost the edges. Offsets and places have the dtype of the weights even under autocast.

    Args:
        channels: width of the feature maps.
        groups: number of offsets, each for channels / groups channels; must divide channels.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, groups: Count = 4) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(
                f"channels ({channels}) must be divisible by groups ({groups});"
                " choose groups that divides channels"
            )
        self.move = nn.Conv2d(2 * channels, 2 * groups, 1)
        for parameter in self.move.parameters():
            nn.init.normal_(parameter, std=0.001)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return how much of what a position reads is its own context, per channel group.

        The weight of the position itself in the bilinear reading: 1 keeps its context, 0 takes the
        context of a place at least one row or column away; groups are independent. The map does
        not tell where to.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, G, h, w)
        """
        return own_weight(self._offsets(context, x))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Read the context at the predicted places."""
        offsets = self._offsets(context, x)
        with torch.autocast(x.device.type, enabled=False):
            return warp(context.to(offsets.dtype), offsets).to(context.dtype)

    def _offsets(self, context: Tensor, x: Tensor) -> Tensor:
        return 0.5 * self.move(torch.cat([context, x], dim=1)).to(self.move.weight.dtype)
