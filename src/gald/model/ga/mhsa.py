"""Multi-head self-attention with rotary positions: global aggregation as in vision transformers."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width

# The slowest channel pair rotates by 1 / _ROTARY_BASE per position; a side has about a hundred.
_ROTARY_BASE = 100.0


class MHSA(nn.Module):
    """Multi-head self-attention with two-dimensional rotary positions.

    With q, k, v 1x1 projections of x, per head:
    y_i = sum_j softmax_j((R_i q_i) . (R_j k_j) / sqrt(C / heads)) v_j; out = x + BN(W y).
    R rotates pairs of channels by angles proportional to the row (first half of a head) and to the
    column (second half), so that logits depend on offsets alone. Of the P pairs of a half, pair
    p = 0, 1, ... turns by 100^(-p / (P - 1)) radians per position: from 1 to 1/100, both included.
    Memory grows with N, not N^2, where torch has a fused attention kernel; time grows with N^2.

    Paper: "Attention Is All You Need", https://arxiv.org/abs/1706.03762; rotary positions:
    "RoFormer: Enhanced Transformer with Rotary Position Embedding",
    https://arxiv.org/abs/2104.09864
    Deviations: attention alone, without the feed-forward layer; a batch norm after it instead of a
    layer norm before it; rows and columns are rotated separately, since the paper's text has one
    axis, with base 100 instead of 10000; the exponents of the frequencies divide by P - 1, where
    the paper divides by P, which never reaches the slowest one; projections without bias.

    Args:
        channels: width of the feature map, in and out.
        heads: number of attention heads; must divide channels, for rotary into multiples of 4.
        positions: `rotary`, or `none` for attention without position information.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, heads: Count = 4, positions: Literal["rotary", "none"] = "rotary"
    ) -> None:
        super().__init__()
        if positions not in ("rotary", "none"):
            raise ValueError(
                f"positions ({positions}) must be rotary or none; set positions=rotary"
            )
        multiple = 4 if positions == "rotary" else 1
        if heads < 1 or channels < heads or channels % (multiple * heads):
            raise ValueError(
                f"channels ({channels}) must be divisible by {multiple} times heads ({heads});"
                f" choose heads so that each head has a multiple of {multiple} channels"
            )
        self.heads = heads
        self.positions = positions
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.project = ConvNormAct(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend with every head and add the result to x."""
        # Fused kernels need a contiguous channel dimension; in channels_last this copies nothing.
        qkv = self.qkv(x).permute(0, 2, 3, 1).contiguous()  # (B, h, w, 3C)
        qkv = qkv.unflatten(3, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5)
        q, k, v = qkv.unbind()  # (B, heads, h, w, C / heads)
        if self.positions == "rotary":
            q, k = self._rotate(q), self._rotate(k)
        q, k, v = (part.flatten(2, 3) for part in (q, k, v))  # (B, heads, N, C / heads)
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])  # (B, C, h, w)
        return x + self.project(y).to(x.dtype)

    def _rotate(self, part: Tensor) -> Tensor:
        height, width, size = part.shape[2:]
        # Positions beyond 256 and small angles need more precision than bfloat16 has.
        dtype, device = self.qkv.weight.dtype, part.device
        frequency = _ROTARY_BASE ** -torch.linspace(0, 1, size // 4, dtype=dtype, device=device)
        rows = torch.arange(height, dtype=dtype, device=device)[:, None, None] * frequency
        columns = torch.arange(width, dtype=dtype, device=device)[:, None] * frequency
        angles = torch.cat(
            [rows.expand(-1, width, -1), columns.expand(height, -1, -1)], dim=2
        )  # (h, w, C / heads / 2)
        a, b = part.to(angles.dtype).unflatten(4, (-1, 2)).unbind(5)
        rotated = [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()]
        return torch.stack(rotated, dim=5).flatten(4).to(part.dtype)
