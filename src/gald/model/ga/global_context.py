"""Global context block: global aggregation by one attention map shared by all positions."""

import torch
from torch import Tensor, nn

from gald.options.ranges import Count, Width


class GC(nn.Module):
    """Global context block: adds one transformed, attention-pooled vector to every position.

    With a = softmax over positions of <w, x_j>: out = x + W2 ReLU(LN(W1 sum_j a_j x_j)).

    Paper: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
    https://arxiv.org/abs/1904.11492
    Deviations: w has no bias, which the softmax would cancel; W2 has the usual initialisation, not
    0, since the block is part of a new head and has no pretrained path to preserve. It then equals
    timm's GlobalContext(fuse_add=True, fuse_scale=False) except for the norm's epsilon.

    Args:
        channels: width of the feature map, in and out.
        reduction: ratio of channels to bottleneck width.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, reduction: Count = 4) -> None:
        super().__init__()
        if reduction < 1 or channels < 2 * reduction:
            raise ValueError(
                f"channels ({channels}) must be at least twice reduction ({reduction}), because"
                " layer norm needs two values; choose a smaller reduction"
            )
        width = channels // reduction
        self.attend = nn.Conv2d(channels, 1, 1, bias=False)
        self.transform = nn.Sequential(
            nn.Linear(channels, width),
            nn.LayerNorm(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pool by attention, transform, add the result to x."""
        logits = self.attend(x).flatten(1)  # (B, N)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.attend.weight.dtype
            weights = logits.to(dtype).softmax(dim=1)
            pooled = (x.flatten(2).to(dtype) @ weights.unsqueeze(2)).squeeze(2)  # (B, C)
        return x + self.transform(pooled)[:, :, None, None].to(x.dtype)
