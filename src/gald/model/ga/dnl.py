"""Disentangled non-local block: global aggregation by pairwise and by unary attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.options.ranges import Positive, Width


class DNL(nn.Module):
    """Disentangled non-local block: attention by similarity plus attention by salience.

    With q, k, v, m four 1x1 projections, k' = k - its mean over positions and
    q' = (q - its mean over positions) / temperature:
    out_i = x_i + W sum_j (softmax_j(<q'_i, k'_j> / sqrt(key_channels)) + softmax_j(m_j)) v_j.

    Paper: "Disentangled Non-Local Neural Networks", https://arxiv.org/abs/2006.06668
    Reference: yinmh17/DNL-Semantic-Segmentation@13ce92a model/seg/ops/nonlocal_block.py; it divides
    the pairwise logits by sqrt(key_channels) and by a temperature.
    Deviations: the temperature is 1 by default. The authors' is 0.05 on Cityscapes (also in
    open-mmlab/mmsegmentation, mmseg/models/decode_heads/dnl_head.py), which makes the pairwise
    attention 20 times sharper: set model.ga.temperature=0.05 to follow them. The pairwise term has
    no learned factor, which starts at 0 in the reference; q, k and m have no bias, which mean and
    softmax would cancel; W has one; no norm after W, because over one image batch norm would cancel
    the salience term, which is the same vector at every position.

    Args:
        channels: width of the feature map, in and out.
        key_channels: width of q, k and v; None is half of channels.
        temperature: divides the pairwise logits; a small one makes the attention sharp.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, key_channels: Width | None = None, temperature: Positive = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(
                f"temperature ({temperature}) must be above 0; set temperature=0.05 as the authors"
            )
        self.temperature = temperature
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
        # Passed as the scale of the logits: q divided by a small temperature overflows float16.
        scale = k.shape[3] ** -0.5 / self.temperature
        pairwise = F.scaled_dot_product_attention(q, k, v.unsqueeze(1), scale=scale).squeeze(1)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.project.weight.dtype
            unary = m.to(dtype).softmax(dim=1).transpose(1, 2) @ v.to(dtype)  # (B, 1, C/2)
            y = (pairwise.to(dtype) + unary).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.project(y).to(x.dtype)
