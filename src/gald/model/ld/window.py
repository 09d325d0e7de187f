"""Window attention: the local feature attends to the context around each position."""

import torch
from torch import Tensor, nn

from gald.model.neighbourhood import neighbours, softmax_inside, weighted_sum
from gald.options.ranges import Count, Width


class WindowAttention(nn.Module):
    """Window attention: every position of x attends to the context in its k x k window.

    With q(p) = Wq x(p), k(p) = Wk context(p): A_r(p) = softmax over r of
    (q(p) . k(p + r) / sqrt(width) + b_r); out(p) = sum_r A_r(p) * context(p + r). The local feature
    selects the context of similar neighbours.

    Paper: "Stand-Alone Self-Attention in Vision Models", https://arxiv.org/abs/1906.05909
    Deviations: the query comes from x, key and value from the context; the values are the context
    itself, so that it is distributed and not transformed; one head; a learned bias per cell,
    starting at 0, for the relative position; the logits are scaled; cells outside the map get
    weight 0.

    Args:
        channels: width of the feature maps.
        kernel_size: side k of the window; odd, at least 3.
        width: width of the queries and keys; None is an eighth of channels, at least 8.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, kernel_size: Count = 5, width: Width | None = None) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size ({kernel_size}) must be odd and at least 3, so that a window has a"
                f" centre and neighbours; choose {max(kernel_size + 1, 3)}"
            )
        width = max(channels // 8, 8) if width is None else width
        self.kernel_size = kernel_size
        self.query = nn.Conv2d(channels, width, 1)
        # A bias would add the same value to every cell of a window, which the softmax cancels.
        self.key = nn.Conv2d(channels, width, 1, bias=False)
        self.position = nn.Parameter(torch.zeros(kernel_size**2))

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the attention A: the weight of each cell of the window at every position.

        The K = k * k weights of a position, row by row, sum to 1; 1 takes only the context of that
        cell (the middle channel is the position itself), 0 ignores it.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, K, h, w)
        """
        # In the dtype of the weights: a sum of products overflows float16.
        q = self.query(x).to(self.position.dtype)
        k = self.key(context).to(self.position.dtype)
        q = q / q.shape[1] ** 0.5
        scores = [(q * cell).sum(dim=1) for cell in neighbours(k, self.kernel_size)]
        logits = torch.stack(scores, dim=1) + self.position.view(-1, 1, 1)  # (B, K, h, w)
        return softmax_inside(logits, self.kernel_size)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Attend to the context around every position."""
        attention = self.distribution_map(context, x)
        return weighted_sum(context, attention, self.kernel_size).to(context.dtype)
