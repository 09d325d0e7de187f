"""Efficient attention: global aggregation by attention with a cost linear in N."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width


class LinearAttention(nn.Module):
    """Efficient attention: every position mixes summaries of the map, one per key channel.

    With q, k, v three 1x1 projections of x, per head: y = softmax_channels(q)
    (softmax_positions(k)^T v); out = x + BN(W y). The (N, N) matrix is never computed.

    Paper: "Efficient Attention: Attention with Linear Complexities",
    https://arxiv.org/abs/1812.01243 (softmax normalisation).
    Deviations: a batch norm after the last projection, as in the other attention modules here;
    projections without bias, since a softmax over positions cancels the bias of k.

    Args:
        channels: width of the feature map, in and out.
        heads: number of attention heads; must divide key_channels.
        key_channels: width of q, k and v; None is half of channels.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, heads: Count = 1, key_channels: Width | None = None
    ) -> None:
        super().__init__()
        keys = max(channels // 2, 1) if key_channels is None else key_channels
        if heads < 1 or keys < heads or keys % heads:
            raise ValueError(
                f"key_channels ({keys}) must be divisible by heads ({heads});"
                " choose heads that divides key_channels"
            )
        self.heads = heads
        self.query = nn.Conv2d(channels, keys, 1, bias=False)
        self.key = nn.Conv2d(channels, keys, 1, bias=False)
        self.value = nn.Conv2d(channels, keys, 1, bias=False)
        self.project = ConvNormAct(keys, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Summarise the map per key channel, mix the summaries, add the result to x."""
        q, k, v = (
            conv(x).flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, C/2 / heads, N)
            for conv in (self.query, self.key, self.value)
        )
        # The weights of a softmax over a whole map are too small for low precision.
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (part.to(self.query.weight.dtype) for part in (q, k, v))
            summaries = v @ k.softmax(dim=3).transpose(2, 3)  # (B, heads, values, keys)
            y = summaries @ q.softmax(dim=2)  # (B, heads, C/2 / heads, N)
        y = y.flatten(1, 2).unflatten(2, x.shape[2:]).to(x.dtype)  # (B, C/2, h, w)
        return x + self.project(y).to(x.dtype)
