"""Dual attention: global aggregation over positions, over channels, or over both."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Width


class PAM(nn.Module):
    """Position attention module: every position attends to all positions.

    With q, k, v three 1x1 projections: out = x + gamma softmax(q k^T) v, gamma learned.

    Paper: "Dual Attention Network for Scene Segmentation", https://arxiv.org/abs/1809.02983
    (position attention module).
    Deviations: gamma starts at 1, not at 0, so that the projections learn from the first step;
    k has no bias, which the softmax would cancel.

    Args:
        channels: width of the feature map, of v, in and out.
        key_channels: width of q and k; None is an eighth of channels, as in the authors' code.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, key_channels: Width | None = None) -> None:
        super().__init__()
        key_channels = max(channels // 8, 1) if key_channels is None else key_channels
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to every position and add the result to x."""
        q, k, v = (
            conv(x).flatten(2).transpose(1, 2).contiguous().unsqueeze(1)  # (B, 1, N, C/8 or C)
            for conv in (self.query, self.key, self.value)
        )
        padding = v.shape[3] - q.shape[3]
        if x.device.type == "cpu" and padding > 0:
            # The fused CPU kernel needs equal widths. Zeros do not change the result, take about
            # the same time, and at 97x97 with 256 channels reduce the peak from 768 MB to 13 MB.
            q, k = (F.pad(part, (0, padding)) for part in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)  # (B, N, C)
        y = y.transpose(1, 2).unflatten(2, x.shape[-2:])  # (B, C, h, w)
        return x + (self.gamma * y).to(x.dtype)


class CAM(nn.Module):
    """Channel attention module: every channel attends to all channels, most to dissimilar ones.

    With X the map as C x N: out = X + gamma softmax(max(X X^T) - X X^T) X, softmax and maximum
    along rows, gamma learned.

    Paper: "Dual Attention Network for Scene Segmentation", https://arxiv.org/abs/1809.02983
    (channel attention module).
    Reference: junfu1115/DANet encoding/nn/da_att.py:CAM_Module. Its softmax prefers dissimilar
    channels, while the paper's formula, softmax(X X^T), prefers similar ones. Published numbers
    come from the code, so this module follows the code. Deviations: gamma starts at 1, not at 0, as
    in PAM; products are summed over positions in the dtype of the weights, because such a sum
    overflows float16.

    Args:
        channels: width of the feature map; not used, no layer depends on it.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to every channel and add the result to x."""
        with torch.autocast(x.device.type, enabled=False):
            flat = x.flatten(2).to(self.gamma.dtype)  # (B, C, N)
            # The formula's max(...) cancels in the softmax.
            weights = (-flat @ flat.transpose(1, 2)).softmax(dim=2)  # (B, C, C)
            y = (self.gamma * (weights @ flat)).unflatten(2, x.shape[-2:])  # (B, C, h, w)
        return x + y.to(x.dtype)


class DANet(nn.Module):
    """Dual attention: the sum of position attention and channel attention.

    out = W_p PAM(x) + W_c CAM(x), each W a 3x3 convolution with norm and ReLU.

    Paper: "Dual Attention Network for Scene Segmentation", https://arxiv.org/abs/1809.02983
    Deviations: both modules share one convolution before them, the Segmentor's, instead of one
    each; no further convolution after the sum; no dropout; no losses on the two branches.

    Args:
        channels: width of the feature map, in and out.
        key_channels: width of q and k in PAM; None is an eighth of channels.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, key_channels: Width | None = None) -> None:
        super().__init__()
        self.position = nn.Sequential(
            PAM(channels, key_channels), ConvNormAct(channels, channels, 3)
        )
        self.channel = nn.Sequential(CAM(channels), ConvNormAct(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both attentions."""
        return (self.position(x) + self.channel(x)).to(x.dtype)
