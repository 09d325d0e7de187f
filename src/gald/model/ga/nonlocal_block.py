"""Non-local block: global aggregation by attention between all positions.

The file is not called nonlocal.py because `nonlocal` is a Python keyword.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Width


class NonLocal(nn.Module):
    """Non-local block: every position attends to all positions.

    With q, k, v three 1x1 projections: out = x + BN(W softmax(q k^T / sqrt(key_channels)) v).
    With residual=False (ours, model/ga=nonlocal_bare) x is not added:
    out = BN(W softmax(q k^T / sqrt(key_channels)) v).
    Memory grows with N, not N^2, where torch has a fused attention kernel; time grows with N^2.

    Paper: "Non-local Neural Networks", https://arxiv.org/abs/1711.07971 (embedded Gaussian).
    Deviations: the logits are scaled, as in scaled dot-product attention, since the width of the
    keys is free here; the last norm starts at 1, not at 0, since the block is part of a new head
    and has no pretrained path to preserve.

    Args:
        channels: width of the feature map, in and out.
        key_channels: width of q, k and v; None is half of channels.
        residual: whether x is added to the result.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, key_channels: Width | None = None, residual: bool = True
    ) -> None:
        super().__init__()
        self.residual = residual
        key_channels = max(channels // 2, 1) if key_channels is None else key_channels
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, key_channels, 1)
        self.project = ConvNormAct(key_channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to every position; add the result to x if the block is residual."""
        y = self.project(self._attend(x)).to(x.dtype)
        return x + y if self.residual else y

    def _attend(self, x: Tensor) -> Tensor:
        # A separate method frees q, k and v before the output projection allocates its maps.
        # Fused kernels need a contiguous channel dimension; in channels_last this copies nothing.
        q, k, v = (
            conv(x).flatten(2).transpose(1, 2).contiguous().unsqueeze(1)  # (B, 1, N, C/2)
            for conv in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # (B, N, C/2)
        return y.transpose(1, 2).unflatten(2, x.shape[-2:])  # (B, C/2, h, w)
