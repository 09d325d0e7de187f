"""Oracle (ours): an upper bound for local distribution, which sees the true boundaries."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.options.ranges import Width


class BoundaryOracle(nn.Module):
    """Oracle (ours): takes the context inside of areas, and the local feature at true boundaries.

    out = x + A * (context - x), with A = sigmoid(b + c * t), t = 1 where a cell has a pixel on a
    boundary between two classes of the ground truth and 0 elsewhere, and b, c one parameter per
    channel. It is the constant mix (model/ld=const) that is also told the place. A starts at 0.88
    inside and at 0.12 at boundaries, which is what a perfect local distribution would do.

    It LEAKS the ground truth, in evaluation too, so its scores are an upper bound of what a
    distribution could gain from knowing the boundaries, not those of a method. Training and
    evaluation refuse it unless `leak` says that this is known, and results carry a mark.

    Args:
        channels: width of the feature maps.
        leak: whether it is known that the ground truth leaks.
        other_image: whether t is that of another image: a control with as much boundary at the
            wrong places. Only gald probe has the boundaries of other images.

    Shape:
        context, x: (B, C, h, w), truth: (B, 1, H, W) -> (B, C, h, w)
    """

    reads: ClassVar = "truth"

    def __init__(self, channels: Width, leak: bool = False, other_image: bool = False) -> None:
        super().__init__()
        self.leak = leak
        self.other_image = other_image
        self.mix = nn.Parameter(torch.full((channels,), 2.0))
        self.at_boundary = nn.Parameter(torch.full((channels,), -4.0))

    def distribution_map(self, context: Tensor, x: Tensor, truth: Tensor) -> Tensor:
        """Return the mix A: 1 takes the context, 0 keeps x; channels are independent.

        Args:
            context: the globally aggregated feature; not used.
            x: the feature before aggregation; only its shape is used.
            truth: boundaries of the ground truth at the size of the image, in [0, 1].

        Shape:
            context, x: (B, C, h, w), truth: (B, 1, H, W) -> (B, C, h, w)
        """
        h, w = x.shape[-2:]
        there = F.adaptive_max_pool2d(truth.to(self.mix.dtype), (h, w))
        return torch.sigmoid(self.mix[:, None, None] + self.at_boundary[:, None, None] * there)

    def forward(self, context: Tensor, x: Tensor, truth: Tensor) -> Tensor:
        """Move from x towards the context by the fraction A."""
        return x + (self.distribution_map(context, x, truth) * (context - x)).to(x.dtype)
