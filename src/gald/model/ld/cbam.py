"""Convolutional block attention: a control with a channel map times a position map."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width


class CBAM(nn.Module):
    """Convolutional block attention: scales the context per channel, then per position.

    Mc = sigmoid(MLP(mean(context)) + MLP(max(context))), y = Mc * context,
    Ms = sigmoid(BN(Conv7x7[mean over channels of y, max over channels of y])); out = Ms * y. A
    control: attention with positions, but without the local feature x.

    Paper: "CBAM: Convolutional Block Attention Module", https://arxiv.org/abs/1807.06521,
    equations 1 to 3.
    Reference: timm.layers.cbam.CbamModule; the same output with its weights, so also without biases
    and with its norm after the 7x7 convolution, which the paper does not mention. Trains on one
    cell at batch 1 (see ConvNormAct).

    Args:
        channels: width of the feature maps.
        reduction: ratio of channels to the width of the hidden layer, which is at least 1.
        kernel_size: side of the convolution that scores positions; odd.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, reduction: Count = 16, kernel_size: Count = 7) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size ({kernel_size}) must be odd to keep the size of the map;"
                f" choose {kernel_size + 1}"
            )
        width = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, width, 1, bias=False)
        self.excite = nn.Conv2d(width, channels, 1, bias=False)
        self.score = ConvNormAct(2, 1, kernel_size, act=False)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return Mc * Ms: 1 keeps a channel at a position, 0 removes it; no sum is 1.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation; not used.

        Shape:
            context, x: (B, C, h, w) -> (B, C, h, w)
        """
        # In the dtype of the weights: a sum over a whole map overflows float16.
        dtype = self.squeeze.weight.dtype
        mean = context.mean(dim=(2, 3), keepdim=True, dtype=dtype)
        maximum = context.amax(dim=(2, 3), keepdim=True)
        logits = (self.excite(torch.relu(self.squeeze(pooled))) for pooled in (mean, maximum))
        channel_map = torch.sigmoid(sum(logits))  # (B, C, 1, 1)
        y = channel_map * context
        pooled = torch.cat(
            [y.mean(dim=1, keepdim=True, dtype=dtype), y.amax(dim=1, keepdim=True).to(dtype)], dim=1
        )
        return channel_map * torch.sigmoid(self.score(pooled))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Scale the channels and the positions of the context."""
        return (context * self.distribution_map(context, x)).to(context.dtype)
