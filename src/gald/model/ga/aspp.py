"""Atrous spatial pyramid pooling: global aggregation by convolutions with several dilations."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Counts, Width


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: convolutions at several dilation rates, and the image mean.

    A 1x1 convolution, one 3x3 convolution per rate and the projected image mean, concatenated and
    fused by a 1x1 convolution: out = W [W0 x, W1 * x at rate 1, W2 * x at rate 2, ..., Wm mean(x)].

    Paper: "Rethinking Atrous Convolution for Semantic Image Segmentation",
    https://arxiv.org/abs/1706.05587
    Deviations: as many output as input channels, to fit the slot; no dropout; trains at batch
    1, where the norm of the image mean uses its running statistics (see ConvNormAct).

    Args:
        channels: width of the feature map and of every branch.
        rates: dilations of the 3x3 convolutions; the default suits output stride 16, twice as
            much suits output stride 8.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, rates: Counts = (6, 12, 18)) -> None:
        super().__init__()
        self.point = ConvNormAct(channels, channels)
        self.atrous = nn.ModuleList(
            ConvNormAct(channels, channels, 3, dilation=rate) for rate in rates
        )
        self.scene = ConvNormAct(channels, channels)
        self.fuse = ConvNormAct((len(self.atrous) + 2) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply all branches and fuse them."""
        mean = self.scene(x.mean(dim=(2, 3), keepdim=True))  # (B, C, 1, 1)
        branches = [self.point(x), *(atrous(x) for atrous in self.atrous)]
        return self.fuse(torch.cat([*branches, mean.expand_as(x)], dim=1)).to(x.dtype)
