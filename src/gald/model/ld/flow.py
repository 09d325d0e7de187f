"""Semantic flow: context and local feature are warped towards each other and mixed by a gate."""

import torch
from torch import Tensor, nn

from gald.model.warping import warp
from gald.options.ranges import Width


class SemanticFlow(nn.Module):
    """Gated dual semantic flow: warps the context and x by two flows, then mixes them by a gate.

    With z = [P context, Q x] compressed by 1x1 convolutions, two flows d, e in pixels and a gate A,
    each a 3x3 convolution of z: out(p) = A(p) * context(p + d(p)) + (1 - A(p)) * x(p + e(p)), read
    bilinearly. The context is aligned with the edges of x before it is used. Flows start near 0 and
    A near 0.5, so the output starts near the mean of both features.

    Paper: "SFNet: Faster and Accurate Semantic Segmentation via Semantic Flow",
    https://arxiv.org/abs/2207.04415, its gated dual flow alignment module; the flow is that of
    "Semantic Flow for Fast and Accurate Scene Parsing", https://arxiv.org/abs/2002.10120
    Reference: lxtGH/SFSegNets@22c5669 network/nn/operators.py:AlignedModulev2. Deviations: both
    features have one size, so that nothing is upsampled before; flows are in pixels, where one unit
    of the reference is (W - 1) / (2 W) pixels; places outside the map read its border, not 0; flows
    and gate start near 0, not at torch's initialisation, and have a bias; flows, places and mixture
    have the dtype of the weights even under autocast.

    Args:
        channels: width of the feature maps.
        width: width to which each feature is compressed; None is half of channels.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, width: Width | None = None) -> None:
        super().__init__()
        width = max(channels // 2, 1) if width is None else width
        self.from_context = nn.Conv2d(channels, width, 1, bias=False)
        self.from_x = nn.Conv2d(channels, width, 1, bias=False)
        self.move = nn.Conv2d(2 * width, 4, 3, padding=1)
        self.decide = nn.Conv2d(2 * width, 1, 3, padding=1)
        # Small, so that all starts in place; not zero, so that all layers learn.
        for parameter in (*self.move.parameters(), *self.decide.parameters()):
            nn.init.normal_(parameter, std=0.001)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the gate A: 1 takes the warped context, 0 the warped x; same for all channels.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, 1, h, w)
        """
        return self._gate(self._compress(context, x))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Warp both features and mix them."""
        hidden = self._compress(context, x)
        gate = self._gate(hidden)
        flows = self.move(hidden).to(gate.dtype)
        with torch.autocast(x.device.type, enabled=False):
            aligned = warp(context.to(gate.dtype), flows[:, :2])
            local = warp(x.to(gate.dtype), flows[:, 2:])
            return (gate * aligned + (1 - gate) * local).to(x.dtype)

    def _compress(self, context: Tensor, x: Tensor) -> Tensor:
        return torch.cat([self.from_context(context), self.from_x(x)], dim=1)

    def _gate(self, hidden: Tensor) -> Tensor:
        return torch.sigmoid(self.decide(hidden).to(self.decide.weight.dtype))
