"""Global average pooling: global aggregation by the image mean."""

from torch import Tensor, nn

from gald.options.ranges import Width


class GAP(nn.Module):
    """Global average pooling: adds the projected image mean to every position; cheapest baseline.

    out = x + W mean(x) + b, the mean over all positions.

    Paper: "ParseNet: Looking Wider to See Better", https://arxiv.org/abs/1506.04579
    Deviations: the mean is projected and added, where the paper concatenates it to the channels; a
    linear classifier after the concatenation computes such a sum too; no L2 normalisation, since x
    comes from a normalised convolution.

    Args:
        channels: width of the feature map, in and out.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width) -> None:
        super().__init__()
        # No batch norm: from the means of two images it would keep only the sign of the difference.
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the projected mean to x."""
        return x + self.project(x.mean(dim=(2, 3), keepdim=True)).to(x.dtype)
