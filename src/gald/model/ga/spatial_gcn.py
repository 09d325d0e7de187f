"""Graph convolution over positions: global aggregation through a graph of channels."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Width


class SpatialGCN(nn.Module):
    """Graph convolution over positions, through one channel-by-channel graph per image.

    With q, k, v three 1x1 projections of x as (planes, N) matrices:
    A = softmax_rows(q v^T), out = ReLU(x + BN(W2 BN(W1 A^T k))). Cost grows with N, not N^2.

    Paper: "Dual Graph Convolutional Network for Semantic Segmentation",
    https://arxiv.org/abs/1909.06121
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/DualGCNNet.py:SpatialGCN. Deviations that do
    not change the maths: the graph runs in the dtype of the weights even under autocast, because
    q v^T is an unscaled sum over a whole map; trains on a single position (see ConvNormAct).

    Args:
        channels: width of the feature map, in and out.
        planes: width of q, k and v; None is half of channels.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, planes: Width | None = None) -> None:
        super().__init__()
        planes = max(channels // 2, 1) if planes is None else planes
        self.query = nn.Conv2d(channels, planes, 1)
        self.key = nn.Conv2d(channels, planes, 1)
        self.value = nn.Conv2d(channels, planes, 1)
        self.update = ConvNormAct(planes, planes, act=False)
        self.project = ConvNormAct(planes, channels, bias=True, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Build the graph, convolve once and add the result to x."""
        q, k, v = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (part.to(self.query.weight.dtype) for part in (q, k, v))  # (B, C/2, N)
            graph = (q @ v.transpose(1, 2)).softmax(dim=2)  # (B, C/2, C/2)
            y = (graph.transpose(1, 2) @ k).unflatten(2, x.shape[2:])  # (B, C/2, h, w)
            y = self.project(self.update(y))  # (B, C, h, w)
        return (x + y.to(x.dtype)).relu()
