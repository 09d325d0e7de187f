"""Locality-attending attention: global attention with a learned Gaussian around every position."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width


class LocAt(nn.Module):
    """Attention with a learned Gaussian: every position attends to all, and more to those nearby.

    With q, k, v 1x1 projections of x and r = (row, column) of i minus that of j, per head:
    y_i = sum_j softmax_j(q_i . k_j / sqrt(C / heads) + a_i exp(-sum_d r_d^2 / (2 (s_id^2 + 0.1))))
    v_j; out = x + BN(W y). The strength a = softplus(U q) and the variances s^2 =
    reach^2 sigmoid(V q - ln(reach^2 - 1)), one for rows and one for columns, are predicted by
    every position; they start near 0.69 and 1. As the addition is at most a, distant positions
    still count. It makes GALD's claim, that aggregation loses locality, inside the attention.

    Paper: "Locality-Attending Vision Transformer", https://arxiv.org/abs/2603.04892, its
    Gaussian-augmented attention
    Reference: sinahmr/LocAtViT@78667d9 models/locat.py:GaussianAugment, with maps of 14x14
    patches; there `reach`, the largest standard deviation, is the side of the map. Deviations: only
    the attention, without feed-forward layer, position embedding and the parameter-free attention
    that ends the network (it spreads a class token's gradient); a batch norm after it instead of a
    layer norm before it; q, k, v have no bias; `reach` is fixed, where the reference scales the
    variances with the size of the map; the Gaussian has the dtype of the weights even under
    autocast, so distances need no limit; no coarser Gaussian for large maps in training.

    Memory and time grow with N^2, since the addition depends on both positions: at 97x97 positions
    it takes 354 MB per image and head in float32, and training keeps that of every head. For large
    maps wrap it in AtStride, as conf/model/ga/cgnl_stride2.yaml wraps CGNL.

    Args:
        channels: width of the feature map, in and out.
        heads: number of attention heads; must divide channels.
        reach: largest standard deviation of a Gaussian, in positions; at least 2.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, heads: Count = 4, reach: Count = 14) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(
                f"channels ({channels}) must be divisible by heads ({heads});"
                " choose heads that divides channels"
            )
        if reach < 2:
            raise ValueError(
                f"reach ({reach}) must be at least 2, so that a Gaussian can grow from its first"
                " width of 1; set reach=14 as in the reference"
            )
        self.heads = heads
        self.reach = reach
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.spread = nn.Linear(channels // heads, 2)
        self.strength = nn.Linear(channels // heads, 1)
        for layer in (self.spread, self.strength):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.project = ConvNormAct(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend with every head and add the result to x."""
        h, w = x.shape[2:]
        # Fused kernels need a contiguous channel dimension; in channels_last this copies nothing.
        qkv = self.qkv(x).permute(0, 2, 3, 1).contiguous()  # (B, h, w, 3C)
        qkv = qkv.unflatten(3, (3, self.heads, -1)).flatten(1, 2).permute(2, 3, 0, 1, 4)
        # One head after the other: the addition of all at once takes heads times the memory.
        y = [self._attend(q, k, v, h, w) for q, k, v in zip(*qkv.unbind(), strict=True)]
        y = torch.cat(y, dim=2).transpose(1, 2).unflatten(2, (h, w))  # (B, C, h, w)
        return x + self.project(y).to(x.dtype)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, h: int, w: int) -> Tensor:
        """Attend with one head: q, k, v (B, N, C / heads) -> (B, N, C / heads)."""
        nearness = self._gaussian(q, h, w).to(q.dtype).unsqueeze(1)  # (B, 1, N, N)
        q, k, v = (part.unsqueeze(1) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=nearness).squeeze(1)

    def _gaussian(self, q: Tensor, h: int, w: int) -> Tensor:
        """Return what is added to the logits of one head: (B, N, N)."""
        dtype = self.spread.weight.dtype
        with torch.autocast(q.device.type, enabled=False):
            q = q.to(dtype).unflatten(1, (h, w))
            shift = math.log(self.reach**2 - 1)
            variance = self.reach**2 * torch.sigmoid(self.spread(q) - shift)  # (B, h, w, 2)
            narrow = -0.5 / (variance + 0.1)
            rows, columns = (torch.arange(side, dtype=dtype, device=q.device) for side in (h, w))
            down = (rows[:, None] - rows).square().unsqueeze(1)  # (h, 1, h)
            right = (columns[:, None] - columns).square()  # (w, w)
            # A Gaussian along rows times one along columns needs no exponential per pair.
            along_rows = F.softplus(self.strength(q)) * (narrow[..., :1] * down).exp()
            along_columns = (narrow[..., 1:] * right).exp()  # (B, h, w, w)
            return (along_rows.unsqueeze(4) * along_columns.unsqueeze(3)).flatten(3).flatten(1, 2)
