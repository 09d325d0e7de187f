"""Gate: the simplest map from both features, one 1x1 convolution."""

import torch
from torch import Tensor, nn

from gald.options.ranges import Width


class Gate(nn.Module):
    """Gate: mixes context and local feature with one weight per channel and position.

    A = sigmoid(W [context, x] + b), W a 1x1 convolution; out = x + A * (context - x). The control
    for every distribution that also uses the neighbours of a position.

    Paper: "Highway Networks", https://arxiv.org/abs/1505.00387, equation 3 with the context as the
    transformed feature, A as the transform gate and 1 - A as the carry gate.
    Deviations: the gate also reads the context, not only x; its bias has torch's initialisation
    near 0, not a negative one, so that A starts without a preference.

    Args:
        channels: width of the feature maps.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width) -> None:
        super().__init__()
        self.decide = nn.Conv2d(2 * channels, channels, 1)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the gate A: 1 takes the context, 0 keeps x; channels are independent.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, C, h, w)
        """
        return torch.sigmoid(self.decide(torch.cat([context, x], dim=1)))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Move from x towards the context by the fraction A."""
        return x + (self.distribution_map(context, x) * (context - x)).to(x.dtype)
