"""Low-level affinity (ours): a gate that also reads an early map of the backbone."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, adaptive_avg_pool
from gald.options.ranges import Count, Width


class LowLevelAffinity(nn.Module):
    """Low-level affinity gate (ours): mixes context and local feature using an early, fine map.

    With u, v normalised projections of context and x, e = ReLU(BN(E3x3 early)) at the resolution
    of the early map, averaged down to x: A = sigmoid(W ReLU(BN(DW3x3[u, v, e]))), out = x + A *
    (context - x). The early map still has the edges that the deep one has lost; e measures how much
    of each pattern lies within a position. A starts near 0.5, without a preference; with no
    aggregation (context = x) the output is x exactly.

    This design is OURS: `affinity` with other inputs. That early maps carry outlines is the idea
    of the decoder in "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
    Segmentation", https://arxiv.org/abs/1802.02611, which fuses them instead of gating by them.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of the feature maps context and x.
        low_stride: stride of the early map.
        groups: number of maps, each for channels / groups channels; must divide channels.
        width: width of the projections; None is an eighth of channels, at least 8.

    Shape:
        context, x (B, C, h, w), maps finest first -> (B, C, h, w)
    """

    reads: ClassVar[str] = "maps"

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        low_stride: Count = 4,
        groups: Count = 8,
        width: Width | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(
                f"channels ({channels}) must be divisible by groups ({groups});"
                " choose groups that divides channels"
            )
        if low_stride not in in_strides:
            raise ValueError(
                f"model.ld.low_stride ({low_stride}) must be one of the strides of the maps"
                f" {list(in_strides)}; set model.ld.low_stride to one of them"
            )
        width = max(channels // 8, 8) if width is None else width
        self.index = list(in_strides).index(low_stride)
        self.groups = groups
        self.from_context = ConvNormAct(channels, width, act=False)
        self.from_x = ConvNormAct(channels, width, act=False)
        self.from_early = ConvNormAct(in_channels[self.index], width, 3)
        self.compare = ConvNormAct(3 * width, 3 * width, 3, groups=3 * width)
        self.decide = nn.Conv2d(3 * width, groups, 1)
        # Small, so that A starts near 0.5; not zero, so that all layers learn from the first step.
        for parameter in self.decide.parameters():
            nn.init.normal_(parameter, std=0.01)

    def distribution_map(self, context: Tensor, x: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """Return the gate A: 1 takes the context, 0 keeps x; groups are independent.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.
            maps: all maps of the neck, finest first.

        Shape:
            context, x: (B, C, h, w) -> (B, G, h, w)
        """
        # Averaged, not sampled: a bilinear resize to a coarser map skips most edges.
        h, w = x.shape[-2:]
        early = adaptive_avg_pool(self.from_early(maps[self.index]), (h, w))
        features = torch.cat([self.from_context(context), self.from_x(x), early], dim=1)
        return torch.sigmoid(self.decide(self.compare(features)))

    def forward(self, context: Tensor, x: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """Move from x towards the context by the fraction A."""
        gate = self.distribution_map(context, x, maps).unsqueeze(2)  # (B, G, 1, h, w)
        difference = (context - x).unflatten(1, (self.groups, -1))  # (B, G, C/G, h, w)
        return x + (gate * difference).flatten(1, 2).to(x.dtype)
