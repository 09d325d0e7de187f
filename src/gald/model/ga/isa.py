"""Interlaced sparse self-attention: global aggregation by a long-range and a short-range step."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width


class ISA(nn.Module):
    """Interlaced sparse self-attention: cheap global attention in a long and a short-range step.

    Step 1 attends among positions that are `block` apart, step 2 within each block x block square
    of the result z1 of step 1; each step has q, k, v three 1x1 projections of its input:
    z = softmax(q k^T / sqrt(key_channels)) v; out = ReLU(BN(W [x, z2])).
    The map is padded with zeros to whole blocks; the padding is masked in the attention. Positions
    in an incomplete block at the border reach fewer distant positions.

    Paper: "Interlaced Sparse Self-Attention for Semantic Segmentation",
    https://arxiv.org/abs/1907.12273
    Reference: openseg-group/openseg.pytorch@0607633 lib/models/modules/isa_block.py.
    Deviations: no output projection: each step of the reference ends with a 1x1 convolution, norm
    and ReLU, here z is the attended v itself, as in the equation; each projection is one
    convolution, where q and k of the reference are two with norm and ReLU each, and its v has no
    bias; k has no bias, which the softmax would cancel; the padding is at the bottom and right, and
    masked, where the reference pads on all sides and attends to the padding; no dropout.

    Args:
        channels: width of the feature map and of v, in and out.
        key_channels: width of q and k; None is half of channels.
        block: side of the squares in step 2, and distance between positions in step 1.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, key_channels: Width | None = None, block: Count = 8
    ) -> None:
        super().__init__()
        key_channels = max(channels // 2, 1) if key_channels is None else key_channels
        if block < 1:
            raise ValueError(f"block ({block}) must be at least 1; set block=8 as in the paper")
        self.block = block
        self.far, self.near = (
            nn.ModuleList(
                nn.Conv2d(channels, width, 1, bias=bias)
                for width, bias in ((key_channels, True), (key_channels, False), (channels, True))
            )
            for _ in range(2)
        )
        self.fuse = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend at long range, then at short range; fuse the result with x."""
        z = self._attend(self._attend(x, self.far, far=True), self.near, far=False)
        return self.fuse(torch.cat([x, z], dim=1)).to(x.dtype)

    def _attend(self, x: Tensor, projections: nn.ModuleList, far: bool) -> Tensor:
        h, w = x.shape[-2:]
        q, k, v = (self._group(conv(x), far) for conv in projections)  # (B, groups, size, C)
        mask = None
        if h % self.block or w % self.block:
            inside = self._group(x.new_ones(1, 1, h, w), far).squeeze(3) > 0  # (1, groups, size)
            # Padding attends to itself, because not every kernel accepts a query without keys.
            diagonal = torch.eye(inside.shape[2], dtype=torch.bool, device=x.device)
            mask = inside.unsqueeze(2) | diagonal  # (1, groups, size, size)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self._ungroup(y, far, h, w).to(x.dtype)

    def _group(self, x: Tensor, far: bool) -> Tensor:
        """Pad x and split it into attention groups: (B, C, h, w) -> (B, groups, size, C)."""
        side = self.block
        x = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
        x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, C, rows, side, columns, side)
        order = (0, 3, 5, 2, 4, 1) if far else (0, 2, 4, 3, 5, 1)
        return x.permute(order).flatten(3, 4).flatten(1, 2)

    def _ungroup(self, x: Tensor, far: bool, h: int, w: int) -> Tensor:
        """Invert `_group` and crop the padding: (B, groups, size, C) -> (B, C, h, w)."""
        side = self.block
        rows, columns = -(-h // side), -(-w // side)
        grid = (side, side, rows, columns) if far else (rows, columns, side, side)
        x = x.unflatten(2, grid[2:]).unflatten(1, grid[:2])
        x = x.permute((0, 5, 3, 1, 4, 2) if far else (0, 5, 1, 3, 2, 4))
        return x.flatten(4, 5).flatten(2, 3)[:, :, :h, :w]
