"""Dynamic kernels: every position predicts the weights of the context around it."""

import torch
from torch import Tensor, nn

from gald.model.neighbourhood import softmax_inside, weighted_sum
from gald.options.ranges import Count, Width


class DynamicKernel(nn.Module):
    """Dynamic kernels: a k x k window of the context, weighted by a kernel per position.

    A = softmax over the window of E3x3(P1x1[context, x]); out(p) = sum_r A_r(p) * context(p + r).
    A flat region can average its context; an edge can take it from one side only. The output starts
    near the mean of the window.

    Paper: "CARAFE: Content-Aware ReAssembly of FEatures", https://arxiv.org/abs/1905.02188,
    equations 1 to 3 with an upsampling ratio of 1 and its widths and kernel sizes.
    Deviations: no upsampling; the kernels are predicted from the context and x, not only from the
    map that they reassemble; cells outside the map get weight 0 and the rest sums to 1, where
    CARAFE includes zeros.

    Args:
        channels: width of the feature maps.
        kernel_size: side k of the window; odd, at least 3.
        width: width to which both features are compressed.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, kernel_size: Count = 5, width: Width = 64) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size ({kernel_size}) must be odd and at least 3, so that a window has a"
                f" centre and neighbours; choose {max(kernel_size + 1, 3)}"
            )
        self.kernel_size = kernel_size
        self.compress = nn.Conv2d(2 * channels, width, 1)
        self.encode = nn.Conv2d(width, kernel_size**2, 3, padding=1)
        # Small, so that the output starts near the mean; not zero, so that all layers learn.
        for parameter in self.encode.parameters():
            nn.init.normal_(parameter, std=0.01)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the kernels A: the weight of each cell of the window at every position.

        The K = k * k weights of a position, row by row, sum to 1; 1 takes only the context of that
        cell (the middle channel is the position itself), 0 ignores it.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, K, h, w)
        """
        logits = self.encode(self.compress(torch.cat([context, x], dim=1)))
        return softmax_inside(logits.to(self.encode.weight.dtype), self.kernel_size)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Reassemble the context with the predicted kernels."""
        kernels = self.distribution_map(context, x)
        return weighted_sum(context, kernels, self.kernel_size).to(context.dtype)
