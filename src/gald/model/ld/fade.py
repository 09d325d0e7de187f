"""Fusing assets: reassembles the context with kernels from both features, then gates it with x."""

import torch
from torch import Tensor, nn

from gald.model.neighbourhood import softmax_inside, weighted_sum
from gald.options.ranges import Count, Width


class FADE(nn.Module):
    """Fusing the assets of both features: a reassembled context, mixed with x by a gate.

    With z = P context + Q x, compressed by 1x1 convolutions, and K = softmax over a k x k window of
    E3x3 z: y(p) = sum_r K_r(p) * context(p + r), A = sigmoid(G context), G a 1x1 convolution with
    bias; out = x + A * (y - x). It is `dynamic` with an output that may also keep the local
    feature, where detail matters more than semantics. A starts near 0.5 and y near the mean of the
    window.

    Paper: "FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling",
    https://arxiv.org/abs/2207.10392
    Reference: poppinace/fade@1e0c3db pytorch_implementation/FADE_H2L.py:FADE; A is one minus the
    gate there. Deviations: context (the decoder's feature) and x (the encoder's) have one size,
    so that nothing is upsampled and the semi-shift convolution is one convolution of the sum; its
    bias counts once; G starts small, so that A starts near 0.5, and E small, as CARAFE's; cells
    outside the map get weight 0 and the rest sums to 1, where the reference includes zeros.

    Args:
        channels: width of the feature maps.
        kernel_size: side k of the window; odd, at least 3.
        width: width to which both features are compressed.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, kernel_size: Count = 5, width: Width = 64) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size ({kernel_size}) must be odd and at least 3, so that a window has a"
                f" centre and neighbours; choose {max(kernel_size + 1, 3)}"
            )
        self.kernel_size = kernel_size
        self.from_context = nn.Conv2d(channels, width, 1, bias=False)
        self.from_x = nn.Conv2d(channels, width, 1)
        self.encode = nn.Conv2d(width, kernel_size**2, 3, padding=1)
        self.decide = nn.Conv2d(channels, 1, 1)
        # Small, so that A starts near 0.5 and y near the mean; not zero, so that all layers learn.
        for parameter in (*self.encode.parameters(), *self.decide.parameters()):
            nn.init.normal_(parameter, std=0.01)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the gate A: 1 takes the reassembled context, 0 keeps x; same for all channels.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation; not used.

        Shape:
            context, x: (B, C, h, w) -> (B, 1, h, w)
        """
        return torch.sigmoid(self.decide(context).to(self.decide.weight.dtype))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Reassemble the context and mix it with x."""
        gate = self.distribution_map(context, x)
        logits = self.encode(self.from_context(context) + self.from_x(x)).to(gate.dtype)
        kernels = softmax_inside(logits, self.kernel_size)
        y = weighted_sum(context, kernels, self.kernel_size)
        return (x + gate * (y - x)).to(x.dtype)
