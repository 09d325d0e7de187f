"""Global reasoning unit: global aggregation on a small graph of learned nodes."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Width


class GloRe(nn.Module):
    """Global reasoning unit: a graph convolution on learned nodes, projected back to positions.

    With state s (states, N) and assignment b (nodes, N), two 1x1 projections of x:
    V = s b^T / N, Z = W ReLU(V + A V), A acting on the nodes; out = x + BN(P Z b).

    Paper: "Graph-Based Global Reasoning Networks", https://arxiv.org/abs/1811.12814
    Reference: facebookresearch/GloRe@c9ad998 network/global_reasoning_unit.py:GloRe_Unit with
    normalize=True (which its authors advise where the map size varies). Deviations: the last norm
    starts at 1, not at 0, since the block is part of a new head and has no pretrained path to
    preserve; its epsilon is torch's default; the graph runs in the dtype of the weights even under
    autocast.

    Args:
        channels: width of the feature map, in and out.
        nodes: number of graph nodes; None is a quarter of channels.
        states: number of features per node; None is twice the number of nodes.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, nodes: Width | None = None, states: Width | None = None
    ) -> None:
        super().__init__()
        nodes = max(channels // 4, 1) if nodes is None else nodes
        states = 2 * nodes if states is None else states
        self.state = nn.Conv2d(channels, states, 1)
        self.assign = nn.Conv2d(channels, nodes, 1)
        self.adjacency = nn.Conv1d(nodes, nodes, 1)
        self.update = nn.Conv1d(states, states, 1, bias=False)
        self.project = ConvNormAct(states, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project to nodes, convolve on the graph, project back, add the result to x."""
        state, assign = self.state(x).flatten(2), self.assign(x).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.state.weight.dtype
            state, assign = state.to(dtype), assign.to(dtype)  # (B, C/2, N), (B, C/4, N)
            v = assign @ state.transpose(1, 2) / assign.shape[2]  # (B, C/4, C/2)
            z = self.update((v + self.adjacency(v)).relu().transpose(1, 2))  # (B, C/2, C/4)
            y = self.project((z @ assign).unflatten(2, x.shape[2:]))  # (B, C, h, w)
        return x + y.to(x.dtype)
