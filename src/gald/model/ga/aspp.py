"""Atrous spatial pyramid pooling: global aggregation by convolutions of several reaches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct


class ASPP(nn.Module):
    """Lets every position look at several distances at once, and at the mean of the scene.

    A 1x1 convolution, one 3x3 convolution per rate and the projected image mean, concatenated and
    fused by a 1x1 convolution: out = W [W0 x, W1 * x at rate 1, W2 * x at rate 2, ..., Wm mean(x)].

    Paper: "Rethinking Atrous Convolution for Semantic Image Segmentation",
    https://arxiv.org/abs/1706.05587
    Deviations: as many channels out as in, so that it fits the slot; no dropout; trains at batch
    1, where the norm of the image mean uses its running statistics (see ConvNormAct).

    Args:
        channels: width of the feature map and of every branch.
        rates: dilations of the 3x3 convolutions; the default suits output stride 16, twice of it 8.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: int, rates: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        self.point = ConvNormAct(channels, channels)
        self.atrous = nn.ModuleList(
            ConvNormAct(channels, channels, 3, dilation=rate) for rate in rates
        )
        self.scene = ConvNormAct(channels, channels)
        self.fuse = ConvNormAct((len(self.atrous) + 2) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Gather every reach and the scene."""
        scene = self.scene(x.mean(dim=(2, 3), keepdim=True))  # (B, C, 1, 1)
        near_to_far = [self.point(x), *(atrous(x) for atrous in self.atrous)]
        return self.fuse(torch.cat([*near_to_far, scene.expand_as(x)], dim=1)).to(x.dtype)
