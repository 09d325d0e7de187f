"""Object-contextual representations: global aggregation over soft regions of the classes."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Width


class OCR(nn.Module):
    """Object-contextual representations: every position attends to one feature per class.

    With m_k the scores of class k from the auxiliary head, softmaxed over positions:
    f_k = sum_i m_ki x_i, w_ik = softmax_k(phi(x_i) . psi(f_k) / sqrt(key_channels)),
    out_i = g([x_i, rho(sum_k w_ik delta(f_k))]).

    Paper: "Object-Contextual Representations for Semantic Segmentation",
    https://arxiv.org/abs/1909.11065
    Deviations: the scores come from the model's auxiliary head; no dropout after g; trains where a
    norm sees a single value (see ConvNormAct).

    Args:
        channels: width of the feature map, in and out.
        key_channels: width of phi, psi and delta; None is half of channels.
        align_corners: how the scores are resized to the feature map.

    Shape:
        x: (B, C, h, w), aux: (B, K, h', w') -> (B, C, h, w)
    """

    reads: ClassVar[str] = "aux"

    def __init__(
        self, channels: Width, key_channels: Width | None = None, align_corners: bool = False
    ) -> None:
        super().__init__()
        keys = max(channels // 2, 1) if key_channels is None else key_channels
        self.align_corners = align_corners
        self.query = nn.Sequential(ConvNormAct(channels, keys), ConvNormAct(keys, keys))
        self.key = nn.Sequential(ConvNormAct(channels, keys), ConvNormAct(keys, keys))
        self.value = ConvNormAct(channels, keys)
        self.project = ConvNormAct(keys, channels)
        self.fuse = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        """Average regions by the auxiliary scores, attend to them, fuse the result with x."""
        q = self.query(x).flatten(2).transpose(1, 2)  # (B, N, C/2)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.fuse.conv.weight.dtype
            scores = resize(aux.to(dtype), x.shape[2:], self.align_corners)
            weights = scores.flatten(2).softmax(dim=2)  # (B, K, N)
            # As a batch of rows: for transposed maps of one column torch's batch norm can return
            # a wrong gradient without an error (CPU, torch 2.15).
            regions = weights @ x.to(dtype).flatten(2).transpose(1, 2)  # (B, K, C)
            rows = regions.flatten(0, 1)[:, :, None, None]  # (B * K, C, 1, 1)
            k, v = (
                part(rows).view(*regions.shape[:2], -1)  # (B, K, C/2)
                for part in (self.key, self.value)
            )
            logits = q.to(dtype) @ k.transpose(1, 2) / k.shape[2] ** 0.5  # (B, N, K)
            attention = logits.softmax(dim=2)
            y = (attention @ v).transpose(1, 2).unflatten(2, x.shape[2:])  # (B, C/2, h, w)
        y = self.project(y.to(x.dtype))
        return self.fuse(torch.cat([x, y.to(x.dtype)], dim=1)).to(x.dtype)
