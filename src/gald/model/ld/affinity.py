"""Affinity distribution (ours): a gate computed from the global and the local feature."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width


class Affinity(nn.Module):
    """Affinity gate (ours): mixes context and local feature per position and channel group.

    out = x + A * (context - x), with A in (0, 1): A = 1 takes the context, A = 0 keeps the local
    feature. With u, v small normalised projections of context and x,
    A = sigmoid(W ReLU(BN(DW3x3[u * v, u - v, |v - mean3x3(v)|]))). The three inputs measure how
    well the two features agree, how they differ, and how much the position stands out from its
    surroundings (edges, thin objects). The map has full resolution and, from u and v on, the
    dtype of the weights even under autocast. A starts near 0.5, without a preference; with no
    aggregation (context = x) the output is x exactly.

    This design is OURS. It is our reading of one sentence, that local distribution "models the
    affinity map between global and local relationship for each pixel adaptively", in the abstract
    of "Global Aggregation then Local Distribution for Scene Parsing",
    https://arxiv.org/abs/2107.13154. The equations and code of that paper's module were not
    available to us; do not report results of this class as that module's.

    Args:
        channels: width of the feature maps.
        groups: number of maps, each for channels / groups channels; must divide channels.
        width: width of the projections; None is an eighth of channels, at least 8.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, groups: Count = 8, width: Width | None = None) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(
                f"channels ({channels}) must be divisible by groups ({groups});"
                " choose groups that divides channels"
            )
        width = max(channels // 8, 8) if width is None else width
        self.groups = groups
        self.from_context = ConvNormAct(channels, width, act=False)
        self.from_x = ConvNormAct(channels, width, act=False)
        self.compare = ConvNormAct(3 * width, 3 * width, 3, groups=3 * width)
        self.decide = nn.Conv2d(3 * width, groups, 1)
        # Small, so that A starts near 0.5; not zero, so that all layers learn from the first step.
        for parameter in self.decide.parameters():
            nn.init.normal_(parameter, std=0.01)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the gate A: 1 takes the context, 0 keeps x; groups are independent.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, G, h, w)
        """
        u, v = self.from_context(context), self.from_x(x)
        # In the dtype of the weights: the product of two values above 256 overflows float16.
        with torch.autocast(x.device.type, enabled=False):
            u, v = u.to(self.decide.weight.dtype), v.to(self.decide.weight.dtype)
            surroundings = F.avg_pool2d(v, 3, stride=1, padding=1, count_include_pad=False)
            features = torch.cat([u * v, u - v, (v - surroundings).abs()], dim=1)
            return torch.sigmoid(self.decide(self.compare(features)))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Move from x towards the context by the fraction A."""
        gate = self.distribution_map(context, x).unsqueeze(2)  # (B, G, 1, h, w)
        difference = (context - x).unflatten(1, (self.groups, -1))  # (B, G, C/G, h, w)
        return x + (gate * difference).flatten(1, 2).to(x.dtype)
