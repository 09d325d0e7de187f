"""Guided filter: transfers the structure of the local feature to a coarse context."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import adaptive_avg_pool, resize
from gald.options.ranges import Count, Positive, Width


class GuidedFilter(nn.Module):
    """Guided filter: a linear function per window maps the guide, from x, to the coarse context.

    With the guide I = G x, and i, o the averages of I and the context over stride x stride cells:
    a = cov(i, o) / (var(i) + eps), b = mean(o) - a * mean(i) per channel and window of coarse
    cells; out = up(a) * I + up(b). Where context and guide are uncorrelated, a = 0 and the output
    is the local mean of the context.

    Paper: "Fast End-to-End Trainable Guided Filter", https://arxiv.org/abs/1803.05619, its guided
    filtering layer; first in "Fast Guided Filter", https://arxiv.org/abs/1505.00996
    Deviations: the paper filters images, this module filters features, each channel with its own
    guide channel; the guide is one 1x1 convolution; the coarse output is the averaged context,
    since nothing runs at low resolution here. Windows are cut at the border and average the cells
    inside the map.

    Args:
        channels: width of the feature maps.
        stride: side of the cells over which context and guide are averaged.
        radius: coarse cells on each side of the centre of a window.
        eps: variance of the guide below which a window counts as flat.
        align_corners: how a and b are resized.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        channels: Width,
        stride: Count = 4,
        radius: Count = 1,
        eps: Positive = 0.01,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if stride < 1 or radius < 1:
            raise ValueError(
                f"stride ({stride}) and radius ({radius}) must be at least 1; set stride=1 to"
                " filter at full resolution"
            )
        self.stride = stride
        self.radius = radius
        self.eps = eps
        self.align_corners = align_corners
        # No norm and no bias: a constant added to the guide cancels out.
        self.guide = nn.Conv2d(channels, channels, 1, bias=False)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return r^2: the fraction of the context's local variance that the guide explains.

        r^2 = cov(i, o)^2 / ((var(i) + eps) * (var(o) + eps)), resized to x. 1 means that the
        context around a position is a linear function of the guide and gets the outlines of x; 0
        means that it becomes its local mean; channels are independent.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, C, h, w)
        """
        _, _, _, var_i, var_o, cov = self._moments(context, x)
        explained = cov.square() / ((var_i + self.eps) * (var_o + self.eps))
        return resize(explained, x.shape[-2:], self.align_corners).clamp(0, 1)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Fit the linear functions on coarse cells and apply them to the fine guide."""
        guide, mean_i, mean_o, var_i, _, cov = self._moments(context, x)
        a = cov / (var_i + self.eps)
        b = mean_o - a * mean_i
        a, b = (resize(part, x.shape[-2:], self.align_corners) for part in (a, b))
        return (a * guide + b).to(context.dtype)

    def _moments(self, context: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        # In the dtype of the weights: a variance as a difference of squares needs the precision.
        guide = self.guide(x).to(self.guide.weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            h, w = x.shape[-2:]
            cells = (-(-h // self.stride), -(-w // self.stride))
            i = adaptive_avg_pool(guide, cells)
            o = adaptive_avg_pool(context.to(guide.dtype), cells)
            mean_i, mean_o = self._box(i), self._box(o)
            var_i = (self._box(i * i) - mean_i * mean_i).clamp(min=0)
            var_o = (self._box(o * o) - mean_o * mean_o).clamp(min=0)
            cov = self._box(i * o) - mean_i * mean_o
        return guide, mean_i, mean_o, var_i, var_o, cov

    def _box(self, x: Tensor) -> Tensor:
        side = 2 * self.radius + 1
        return F.avg_pool2d(x, side, stride=1, padding=self.radius, count_include_pad=False)
