"""External attention: every position attends to a memory that all images share."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width


class ExternalAttention(nn.Module):
    """External attention: positions attend to a learned memory, in competition with each other.

    With y = W1 x + b as (C, N) matrix and two learned memories K (slots, C) and V (C, slots):
    a = softmax_positions(K y), divided by its sum over the slots; out = ReLU(x + BN(W2 V a)).
    The memory is the same for all images; what a position learns of its own image is its share of
    each slot. Cost grows with N, not N^2.

    Paper: "Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks",
    https://arxiv.org/abs/2105.02358, with two memories and the double normalisation
    Reference: MenghaoGuo/EANet@3ae0778 model_torch.py:External_attention. Deviations: K and V are
    two parameters, as in the paper, where the reference lets both share one storage; nothing is
    added to the sum over slots; the attention and what follows has the dtype of the weights even
    under autocast, because weights of a softmax over a whole map are too small for low precision.

    Args:
        channels: width of the feature map, in and out.
        slots: number of entries of the memory.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, slots: Count = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.keys = nn.Conv2d(channels, slots, 1, bias=False)
        self.values = nn.Conv2d(slots, channels, 1, bias=False)
        self.project = ConvNormAct(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to the memory and add the result to x."""
        logits = self.keys(self.enter(x))
        with torch.autocast(x.device.type, enabled=False):
            # The softmax divided by its sum over slots, from logarithms: where a position is the
            # last in all slots, its weights are too small for a quotient.
            logs = logits.to(self.keys.weight.dtype).flatten(2).log_softmax(dim=2)
            weights = logs.softmax(dim=1).unflatten(2, x.shape[2:])  # (B, slots, h, w)
            y = self.project(self.values(weights))
        return (x + y.to(x.dtype)).relu()
