"""Asymmetric non-local block: global aggregation by attention to a pyramid of regions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, adaptive_avg_pool
from gald.options.ranges import Counts, Width


class ANN(nn.Module):
    """Asymmetric non-local block: every position attends to the averages of a few regions.

    With q = k one 1x1 projection, v another, and P the averages over bin x bin cells for all bins:
    out = ReLU(BN(W2 [x, W1 softmax(q P(k)^T / sqrt(key_channels)) P(v)])).
    Cost grows with N, because the number of regions is fixed: 110 by default.

    Paper: "Asymmetric Non-local Neural Networks for Semantic Segmentation",
    https://arxiv.org/abs/1908.07678 (APNB).
    Reference: MendelXu/ANN@6e404a8 models/seg/utils/apnb.py.
    Deviations: APNB alone, without AFNB, which fuses two stages of the backbone; W1 starts at
    torch's random initialisation, where the reference starts it at 0, so that its attention adds
    nothing at first and q and v learn only after W1 has moved; v as wide as q; no bias before the
    norms; no dropout.

    Args:
        channels: width of the feature map, in and out.
        key_channels: width of q, k and v; None is half of channels.
        bins: grid sizes; each one adds bin x bin regions.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        channels: Width,
        key_channels: Width | None = None,
        bins: Counts = (1, 3, 6, 8),
    ) -> None:
        super().__init__()
        key_channels = max(channels // 2, 1) if key_channels is None else key_channels
        self.bins = tuple(bins)
        self.query = ConvNormAct(channels, key_channels)
        self.value = nn.Conv2d(channels, key_channels, 1)
        self.project = nn.Conv2d(key_channels, channels, 1)
        self.fuse = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to the regions and fuse the result with x."""
        projected = self.query(x)
        q = projected.flatten(2).transpose(1, 2).contiguous().unsqueeze(1)  # (B, 1, N, C/2)
        k, v = self._regions(projected), self._regions(self.value(x))  # (B, 1, 110, C/2)
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # (B, N, C/2)
        y = y.transpose(1, 2).unflatten(2, x.shape[-2:])  # (B, C/2, h, w)
        return self.fuse(torch.cat([x, self.project(y).to(x.dtype)], dim=1)).to(x.dtype)

    def _regions(self, x: Tensor) -> Tensor:
        """Average x over every region: (B, C, h, w) -> (B, 1, regions, C)."""
        pooled = torch.cat([adaptive_avg_pool(x, bin).flatten(2) for bin in self.bins], dim=2)
        return pooled.transpose(1, 2).contiguous().unsqueeze(1)
