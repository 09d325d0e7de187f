"""Global average pooling: global aggregation by the plain mean of the scene."""

from torch import Tensor, nn


class GAP(nn.Module):
    """Tells every position the mean of the scene: the cheapest context, a baseline for the rest.

    out = x + W mean(x) + b, the mean over all positions.

    Paper: "ParseNet: Looking Wider to See Better", https://arxiv.org/abs/1506.04579
    Deviations: the mean is projected and added, where the paper appends it to the channels, which
    a linear classifier after it turns into such a sum; no L2 normalisation, since x comes from a
    normalised convolution.

    Args:
        channels: width of the feature map, in and out.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # No batch norm: of two images' means it would keep nothing but the sign of the difference.
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the projected mean to x."""
        return x + self.project(x.mean(dim=(2, 3), keepdim=True)).to(x.dtype)
