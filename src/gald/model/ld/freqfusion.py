"""Frequency-aware fusion: a smoothed context plus the local feature with its edges sharpened."""

import torch
from torch import Tensor, nn

from gald.model.neighbourhood import softmax_inside, weighted_sum
from gald.options.ranges import Count, Width


class FreqFusion(nn.Module):
    """Frequency-aware fusion: low frequencies of the context plus a sharpened local feature.

    With z the compressed features P context and Q x, L = window of E z summed over both, and H the
    same of a second E with its own size, each weighted by a Hamming window and scaled to sum 1:
    l(p) = sum_r L_r(p) * context(p + r), h(p) = sum_r H_r(p) * x(p + r);
    out = l + x + (x - h). The context is smoothed within objects, where it is uneven, and x gets
    its high frequencies twice, since they are what the context lacks. Both windows start nearly
    even.

    Paper: "Frequency-aware Feature Fusion for Dense Image Prediction",
    https://arxiv.org/abs/2408.12879
    Reference: Linwei-Chen/FreqFusion@079a3d8 FreqFusion.py:FreqFusion with scale_factor=1,
    comp_feat_upsample=False and feature_resample=False, and the sum of its outputs. So there is no
    first fusion of the compressed features and no offset generator (`dysample` is its like here).
    Further deviations: context and x have one size, so that nothing is upsampled; cells outside
    the map get weight 0 and the rest sums to 1, where the reference mirrors the map.

    Args:
        channels: width of the feature maps.
        low_size: side of the window that smooths the context; odd, at least 3.
        high_size: side of the window that smooths x; odd, at least 3.
        width: width to which each feature is compressed.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, low_size: Count = 5, high_size: Count = 3, width: Width = 64
    ) -> None:
        super().__init__()
        for name, size in (("low_size", low_size), ("high_size", high_size)):
            if size < 3 or size % 2 == 0:
                raise ValueError(
                    f"{name} ({size}) must be odd and at least 3, so that a window has a centre and"
                    f" neighbours; choose {max(size + 1, 3)}"
                )
        self.from_context = nn.Conv2d(channels, width, 1)
        self.from_x = nn.Conv2d(channels, width, 1)
        self.low = _Window(width, low_size)
        self.high = _Window(width, high_size)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the window L: the weight of each cell of the context at every position.

        The K = low_size^2 weights of a position, row by row, sum to 1; 1 takes only the context of
        that cell (the middle channel is the position itself), 0 ignores it. The share of x in the
        output is not in the map.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, K, h, w)
        """
        return self.low(self._compress(context, x))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Smooth the context, sharpen x, add both."""
        hidden = self._compress(context, x)
        smooth = weighted_sum(context, self.low(hidden), self.low.kernel_size)
        blurred = weighted_sum(x, self.high(hidden), self.high.kernel_size)
        return (smooth + 2 * x.to(blurred.dtype) - blurred).to(x.dtype)

    def _compress(self, context: Tensor, x: Tensor) -> Tensor:
        # One convolution of the sum is the sum of both; only its bias counts once.
        return self.from_context(context) + self.from_x(x)


class _Window(nn.Module):
    """Weights of a k x k window per position: a softmax times a Hamming window, scaled to sum 1."""

    log_hamming: Tensor

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.encode = nn.Conv2d(width, kernel_size**2, 3, padding=1)
        for parameter in self.encode.parameters():
            nn.init.normal_(parameter, std=0.001)
        side = torch.hamming_window(kernel_size, periodic=False, dtype=torch.float64)
        hamming = side[:, None] * side
        self.register_buffer(
            "log_hamming", hamming.log().float().view(1, -1, 1, 1), persistent=False
        )

    def forward(self, hidden: Tensor) -> Tensor:
        # A product with positive weights before the scaling is a sum inside the softmax.
        logits = self.encode(hidden).to(self.log_hamming.dtype) + self.log_hamming
        return softmax_inside(logits, self.kernel_size)
