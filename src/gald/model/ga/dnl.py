"""Disentangled non-local block: global aggregation by pairwise and by unary attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.options.ranges import Width


class DNL(nn.Module):
    """Disentangled non-local block: attention by similarity plus attention by salience.

    With q, k, v, m four 1x1 projections and q', k' minus their mean over positions:
    out_i = x_i + W sum_j (softmax_j(<q'_i, k'_j> / sqrt(key_channels)) + softmax_j(m_j)) v_j.

    Paper: "Disentangled Non-Local Neural Networks", https://arxiv.org/abs/2006.06668
    Deviations: the pairwise logits are scaled, as in NonLocal here; q, k and m have no bias, which
    mean and softmax would cancel; no norm after W, because over one image batch norm would cancel
    the salience term, which is the same vector at every position.

    Args:
        channels: width of the feature map, in and out.
        key_channels: width of q, k and v; None is half of channels.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, key_channels: Width | None = None) -> None:
        super().__init__()
        key_channels = max(channels // 2, 1) if key_channels is None else key_channels
        self.query = nn.Conv2d(channels, key_channels, 1, bias=False)
        self.key = nn.Conv2d(channels, key_channels, 1, bias=False)
        self.value = nn.Conv2d(channels, key_channels, 1)
        self.salience = nn.Conv2d(channels, 1, 1, bias=False)
        self.project = nn.Conv2d(key_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend by similarity and by salience, and add both to x."""
        q, k, v, m = (
            conv(x).flatten(2).transpose(1, 2).contiguous()  # (B, N, C/2), m (B, N, 1)
            for conv in (self.query, self.key, self.value, self.salience)
        )
        q, k = ((part - part.mean(dim=1, keepdim=True)).unsqueeze(1) for part in (q, k))
        pairwise = F.scaled_dot_product_attention(q, k, v.unsqueeze(1)).squeeze(1)  # (B, N, C/2)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.project.weight.dtype
            unary = m.to(dtype).softmax(dim=1).transpose(1, 2) @ v.to(dtype)  # (B, 1, C/2)
            y = (pairwise.to(dtype) + unary).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.project(y).to(x.dtype)
