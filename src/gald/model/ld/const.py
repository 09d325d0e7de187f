"""Constant mix (ours): one learnt number per channel, and no notion of place."""

import torch
from torch import Tensor, nn

from gald.options.ranges import Width


class ConstantMix(nn.Module):
    """Constant mix (ours): mixes context and local feature by one learnt number per channel.

    out = x + A * (context - x), with A = sigmoid(b), b one parameter per channel. A is the same at
    every position of every image. It is the reference arm of every claim about local distribution:
    a distribution that decides by place has to be better than this one. A starts at 0.5, without a
    preference; with no aggregation (context = x) the output is x exactly.

    Args:
        channels: width of the feature maps.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(channels))

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the mix A: 1 takes the context, 0 keeps x; every position has the same.

        Args:
            context: the globally aggregated feature; not used.
            x: the feature before aggregation; only its shape is used.

        Shape:
            context, x: (B, C, h, w) -> (B, C, h, w)
        """
        return torch.sigmoid(self.mix)[:, None, None].expand(x.shape)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Move from x towards the context by the fraction A."""
        return x + (self.distribution_map(context, x) * (context - x)).to(x.dtype)
