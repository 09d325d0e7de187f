"""Dual graph convolution: global aggregation over positions and over features."""

import torch
from torch import Tensor, nn

from gald.model.ga.spatial_gcn import SpatialGCN
from gald.model.layers import ConvNormAct, resize
from gald.options.ranges import Count, Width


class DualGCN(nn.Module):
    """Dual graph convolution: one graph over positions and one over learned nodes, fused.

    Positions: l = up(SpatialGCN(down_8(x))), s = x * l + x.
    Nodes: with state phi (planes, N) and assignment theta (nodes, N), Z = phi theta^T,
    f = ReLU(x + BN(W3 BN(W2 (Z + BN(A Z))) theta)), A acting on the nodes, W2 on the planes.
    out = BN(W [s, f]).

    Paper: "Dual Graph Convolutional Network for Semantic Segmentation",
    https://arxiv.org/abs/1909.06121
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/DualGCNNet.py:DualGCN, exact with
    align_corners=True. Deviations that do not change the maths: the node graph, s and the last
    convolution run in the dtype of the weights even under autocast, because Z is an unscaled sum
    over a whole map and s a product; trains on maps that shrink to a single position (see
    ConvNormAct).

    Args:
        channels: width of the feature map, in and out.
        ratio: channels per node; the state is twice as wide as the number of nodes.
        align_corners: how the position branch is resized.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, ratio: Count = 4, align_corners: bool = False) -> None:
        super().__init__()
        if not 1 <= ratio <= channels:
            raise ValueError(
                f"ratio ({ratio}) must be between 1 and channels ({channels});"
                " choose a smaller ratio or more channels"
            )
        nodes = channels // ratio
        planes = 2 * nodes
        self.align_corners = align_corners
        self.down = nn.Sequential(
            *(ConvNormAct(channels, channels, 3, 2, groups=channels, act=False) for _ in range(3))
        )
        self.positions = SpatialGCN(channels)
        self.state = ConvNormAct(channels, planes, act=False)
        self.assign = ConvNormAct(channels, nodes, act=False)
        self.adjacency = ConvNormAct(nodes, nodes, act=False)
        self.update = ConvNormAct(planes, planes, act=False)
        self.project = ConvNormAct(planes, channels, act=False)
        self.fuse = ConvNormAct(2 * channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both graphs and fuse the results."""
        local = resize(self.positions(self.down(x)), x.shape[2:], self.align_corners)
        nodes = self._nodes(x)
        # In the dtype of the weights: the product of two values above 256 overflows float16.
        with torch.autocast(x.device.type, enabled=False):
            exact = x.to(self.fuse.conv.weight.dtype)
            maps = [exact * local.to(exact.dtype) + exact, nodes.to(exact.dtype)]
            return self.fuse(torch.cat(maps, dim=1)).to(x.dtype)

    def _nodes(self, x: Tensor) -> Tensor:
        state, assign = self.state(x).flatten(2), self.assign(x).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.fuse.conv.weight.dtype
            state, assign = state.to(dtype), assign.to(dtype)  # (B, C/2, N), (B, C/4, N)
            z = state @ assign.transpose(1, 2)  # (B, C/2, C/4)
            z = z + self._apply_to_rows(self.adjacency, z)
            z = self._apply_to_rows(self.update, z.transpose(1, 2)).transpose(1, 2)
            y = (z @ assign).unflatten(2, x.shape[2:])  # (B, C/2, h, w)
            y = self.project(y)  # (B, C, h, w)
        return (x + y).relu()

    @staticmethod
    def _apply_to_rows(layer: ConvNormAct, z: Tensor) -> Tensor:
        # As a batch of rows: for a transposed map of one row or column torch's batch norm can
        # return a wrong gradient without an error (CPU, torch 2.15).
        rows = z.flatten(0, 1)[:, :, None, None]  # (B * C/2, C/4, 1, 1), or the other way round
        return layer(rows).view_as(z)
