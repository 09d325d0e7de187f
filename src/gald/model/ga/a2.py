"""Double attention: global aggregation through a few gathered vectors."""

import torch
from torch import Tensor, nn

from gald.options.ranges import Width


class A2(nn.Module):
    """Double attention: gathers a few vectors from the image and mixes them at every position.

    With A, B, V three 1x1 projections of x, as matrices of channels x positions:
    G = A softmax(B over positions)^T gathers, and out = x + W G softmax(V over channels). The last
    factor distributes the vectors to the positions. Cost grows with N.

    Paper: "A^2-Nets: Double Attention Networks", https://arxiv.org/abs/1810.11579
    Deviations: B has no bias, which its softmax would cancel; sums over positions and softmaxes
    run in the dtype of the weights under autocast too.

    Args:
        channels: width of the feature map, in and out.
        planes: width of the gathered vectors; None is a quarter of channels.
        vectors: number of gathered vectors; None is a quarter of channels.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, planes: Width | None = None, vectors: Width | None = None
    ) -> None:
        super().__init__()
        quarter = max(channels // 4, 1)
        planes = quarter if planes is None else planes
        vectors = quarter if vectors is None else vectors
        self.feature = nn.Conv2d(channels, planes, 1)
        self.gather = nn.Conv2d(channels, vectors, 1, bias=False)
        self.distribute = nn.Conv2d(channels, vectors, 1)
        self.project = nn.Conv2d(planes, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gather vectors, distribute them, add the result to x."""
        feature, gather, distribute = (
            conv(x).flatten(2) for conv in (self.feature, self.gather, self.distribute)
        )
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.project.weight.dtype
            gather = gather.to(dtype).softmax(dim=2)
            distribute = distribute.to(dtype).softmax(dim=1)
            vectors = feature.to(dtype) @ gather.transpose(1, 2)  # (B, planes, vectors)
            y = (vectors @ distribute).unflatten(2, x.shape[-2:])  # (B, planes, h, w)
        return x + self.project(y).to(x.dtype)
