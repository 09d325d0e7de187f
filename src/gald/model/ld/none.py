"""No local distribution: the baseline arm of an ablation."""

from torch import Tensor, nn


class NoDistribution(nn.Module):
    """No local distribution: out = context.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the context."""
        return context
