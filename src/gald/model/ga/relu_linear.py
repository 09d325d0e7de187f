"""ReLU linear attention: global aggregation with a cost linear in N, at several scales."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Counts, Width

_EPSILON = 1e-6  # where no key is positive that the query sees


class ReLULinearAttention(nn.Module):
    """Multi-scale ReLU linear attention: similarity is a product of non-negative projections.

    With q, k, v projections of x, per head and scale:
    y_i = sum_j (ReLU(q_i) . ReLU(k_j)) v_j / sum_j ReLU(q_i) . ReLU(k_j). One scale is the 1x1
    projections themselves, each other one their k x k surroundings, by a depth-wise convolution and
    a 1x1 convolution within each head's q, k or v; out = x + BN(W [y of all scales]). The (N, N)
    matrix is never computed. Without a softmax attention is blunt; the other scales make up for it.

    Paper: "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction",
    https://arxiv.org/abs/2205.14756
    Reference: mit-han-lab/efficientvit@0dcf43d efficientvit/models/nn/ops.py:LiteMLA. Deviations:
    heads are given by their number, not their width; the channels of q, k, v are ordered by kind
    first; without the feed-forward part of its block; 1e-6 instead of 1e-15 is added to the
    denominator; the sums have the dtype of the weights even under autocast, as an unscaled sum over
    a whole map overflows float16.

    Args:
        channels: width of the feature map, in and out.
        heads: number of attention heads; must divide channels.
        scales: sides of the surroundings, odd; one more scale each.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, heads: Count = 8, scales: Counts = (5,)) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(
                f"channels ({channels}) must be divisible by heads ({heads});"
                " choose heads that divides channels"
            )
        for side in scales:
            if side < 1 or side % 2 == 0:
                raise ValueError(
                    f"scales ({side}) must be odd to keep the size of the map; choose {side + 1}"
                )
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        width = 3 * channels
        self.surroundings = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, side, padding=side // 2, groups=width, bias=False),
                nn.Conv2d(width, width, 1, groups=3 * heads, bias=False),
            )
            for side in scales
        )
        self.project = ConvNormAct((1 + len(self.surroundings)) * channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend at every scale and add the result to x."""
        qkv = self.qkv(x)
        scales = [qkv, *(layer(qkv) for layer in self.surroundings)]
        y = torch.cat([self._attend(part) for part in scales], dim=1)
        return x + self.project(y).to(x.dtype)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend with every head: (B, 3C, h, w) -> (B, C, h, w)."""
        with torch.autocast(qkv.device.type, enabled=False):
            parts = qkv.to(self.qkv.weight.dtype).flatten(2).unflatten(1, (3, self.heads, -1))
            q, k, v = parts.unbind(1)  # (B, heads, C / heads, N)
            q, k = q.relu(), k.relu()
            summary = v @ k.transpose(2, 3)  # (B, heads, values, keys)
            total = k.sum(dim=3, keepdim=True).transpose(2, 3)  # (B, heads, 1, keys)
            y = (summary @ q) / (total @ q + _EPSILON)
            return y.flatten(1, 2).unflatten(2, qkv.shape[2:])
