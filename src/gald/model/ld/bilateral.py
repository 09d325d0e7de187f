"""Joint bilateral filter: averages the context among neighbours that look alike in x."""

import torch
from torch import Tensor, nn

from gald.model.neighbourhood import neighbours, softmax_inside, weighted_sum
from gald.options.ranges import Count, Width


class JointBilateral(nn.Module):
    """Joint bilateral filter with a learned range kernel: averages the context where x is alike.

    With g = W2 GELU(W1 x), a learned temperature t and spread s, and the offset r over a window of
    the given radius: A_r(p) = softmax over r of (t * g(p) . g(p + r) - |r / radius|^2 / (2 s^2));
    out(p) = sum_r A_r(p) * context(p + r). Unlike in window attention, the context has no part in
    its weights: they are similarity in x times nearness.

    Paper: "FeatUp: A Model-Agnostic Framework for Features at Any Resolution",
    https://arxiv.org/abs/2403.10516, its joint bilateral upsampler; first in "Joint Bilateral
    Upsampling", https://doi.org/10.1145/1276377.1276497
    Reference: mhamilton723/FeatUp@2320bf5 featup/upsamplers.py:JBULearnedRange. Deviations: the
    guide is the local feature, not the image; no upsampling, since context and x have one size; no
    learned correction of the weights (`fixup_proj`), which makes them negative; no dropout; cells
    outside the map get weight 0, where the reference reflects the map; the logarithms of t and s
    are learned, so that both stay positive, and t is not cut at 0.0001 and 10000.

    Args:
        channels: width of the feature maps.
        radius: cells on each side of the centre of a window; at least 1.
        width: width of the guide g.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    distance: Tensor

    def __init__(self, channels: Width, radius: Count = 3, width: Width = 32) -> None:
        super().__init__()
        if radius < 1:
            raise ValueError(
                f"radius ({radius}) must be at least 1, so that a window has neighbours;"
                " set radius=3 as in the reference"
            )
        self.kernel_size = 2 * radius + 1
        self.guide = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.GELU(), nn.Conv2d(width, width, 1)
        )
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.log_spread = nn.Parameter(torch.zeros(()))
        steps = torch.arange(-radius, radius + 1) / radius
        square = steps[:, None].square() + steps.square()
        self.register_buffer("distance", square.flatten().view(1, -1, 1, 1), persistent=False)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the weights A: the weight of each cell of the window at every position.

        The K = (2 * radius + 1)^2 weights of a position, row by row, sum to 1; 1 takes only the
        context of that cell (the middle channel is the position itself), 0 ignores it.

        Args:
            context: the globally aggregated feature; not used.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, K, h, w)
        """
        # In the dtype of the weights: a sum of products overflows float16.
        guide = self.guide(x).to(self.log_spread.dtype)
        with torch.autocast(x.device.type, enabled=False):
            query = self.log_temperature.exp() * guide
            alike = [(query * cell).sum(dim=1) for cell in neighbours(guide, self.kernel_size)]
            nearness = -0.5 * self.distance * (-2 * self.log_spread).exp()
            return softmax_inside(torch.stack(alike, dim=1) + nearness, self.kernel_size)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Average the context with the weights."""
        weights = self.distribution_map(context, x)
        return weighted_sum(context, weights, self.kernel_size).to(context.dtype)
