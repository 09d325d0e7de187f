"""Deformable sampling: every position samples the context at predicted offsets."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.model.warping import grid, sample
from gald.options.ranges import Count, Width


class DeformableSampling(nn.Module):
    """Deformable sampling: a weighted sum of the context at predicted places around a position.

    With r over the k x k grid, offsets d_r(p) in pixels and weights A_r(p), softmax over r, both
    predicted from the context and x: out(p) = sum_r A_r(p) * context(p + r + d_r(p)), read
    bilinearly. A position at an edge can sample the region that it belongs to. Offsets start near 0
    and weights nearly equal, so the output starts near the mean of the window.

    Paper: "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable
    Convolutions", https://arxiv.org/abs/2211.05778, equation 2 with one group and without the
    projection weights.
    Deviations: offsets and weights are predicted from the context and x by a 1x1 and a 3x3
    convolution; places outside the map read its border, not 0. Sampled by
    torch.nn.functional.grid_sample, one place after the other, since
    torchvision.ops.deform_conv2d multiplies by a weight per channel, which this module does not
    have.

    Args:
        channels: width of the feature maps.
        kernel_size: side k of the grid of places; odd, at least 3.
        width: width to which both features are compressed for the prediction.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, kernel_size: Count = 3, width: Width = 64) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size ({kernel_size}) must be odd and at least 3, so that the grid has a"
                f" centre and neighbours; choose {max(kernel_size + 1, 3)}"
            )
        self.kernel_size = kernel_size
        self.compress = ConvNormAct(2 * channels, width)
        self.weigh = nn.Conv2d(width, kernel_size**2, 3, padding=1)
        self.move = nn.Conv2d(width, 2 * kernel_size**2, 3, padding=1)
        # Small, so that the output starts near the mean; not zero, so that all layers learn.
        for parameter in (*self.weigh.parameters(), *self.move.parameters()):
            nn.init.normal_(parameter, std=0.01)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the weights A of the sampled places at every position.

        The K = k * k weights of a position, in the order of the grid's rows, sum to 1; 1 takes only
        the context of that place, 0 ignores it. The map does not contain the offsets.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, K, h, w)
        """
        return self._weights(self.compress(torch.cat([context, x], dim=1)))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Sample the context at the predicted places and sum with the weights."""
        hidden = self.compress(torch.cat([context, x], dim=1))
        weights = self._weights(hidden)
        # In the dtype of the weights: half precision is too coarse for coordinates in a large map.
        offsets = self.move(hidden).to(weights.dtype)
        with torch.autocast(x.device.type, enabled=False):
            y = self._sample(context.to(weights.dtype), weights, offsets)
        return y.to(context.dtype)

    def _weights(self, hidden: Tensor) -> Tensor:
        return self.weigh(hidden).to(self.weigh.weight.dtype).softmax(dim=1)

    def _sample(self, context: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        rows, columns = grid(context)
        total = torch.zeros_like(context)
        for index in range(self.kernel_size**2):
            down, right = (step - self.kernel_size // 2 for step in divmod(index, self.kernel_size))
            row = rows + down + offsets[:, 2 * index]  # (B, h, w), in pixels
            column = columns + right + offsets[:, 2 * index + 1]
            total = total + weights[:, index].unsqueeze(1) * sample(context, row, column)
        return total
