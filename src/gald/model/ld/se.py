"""Squeeze-and-excitation: a control with one factor per channel and no positions."""

import torch
from torch import Tensor, nn

from gald.options.ranges import Count, Width


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: scales each channel of the context by one factor per image.

    s = sigmoid(W2 ReLU(W1 mean(context))); out = context * s. A control: what another
    distribution gains over this one comes from deciding per position. The local feature x is not
    used.

    Paper: "Squeeze-and-Excitation Networks", https://arxiv.org/abs/1709.01507, equations 2 to 4.
    Reference: timm.layers.SEModule; the same output with its weights.

    Args:
        channels: width of the feature maps.
        reduction: ratio of channels to the width of the hidden layer, which is at least 1.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, reduction: Count = 16) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.excite = nn.Conv2d(width, channels, 1)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return s at every position: 1 keeps a channel, 0 removes it; channels are independent.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation; not used.

        Shape:
            context, x: (B, C, h, w) -> (B, C, h, w), constant over positions
        """
        # In the dtype of the weights: a sum over a whole map overflows float16.
        mean = context.mean(dim=(2, 3), keepdim=True, dtype=self.squeeze.weight.dtype)
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))  # (B, C, 1, 1)
        return scale.expand_as(context)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Scale the channels of the context."""
        return (context * self.distribution_map(context, x)).to(context.dtype)
