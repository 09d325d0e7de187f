"""Cross-entropy with more weight on pixels beside a boundary between classes."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.loss.bands.cross_entropy import Target, banded_cross_entropy
from gald.loss.cross_entropy import labelled
from gald.options.ranges import Count, NotNegative


class BoundaryCrossEntropy(nn.Module):
    """Mean over the labelled pixels of cross-entropy times a factor, `factor` near boundaries.

    A pixel is near a boundary if a labelled pixel of another class is at most `width` rows and
    columns away; void is no class. All other pixels have factor 1. The mean divides by the number
    of labelled pixels, so an image with more boundaries has a larger loss, and the parts of
    accumulated batches and devices sum to the loss of the whole batch.

    After the weight map of "U-Net", https://arxiv.org/abs/1505.04597, Eq. 2. Deviation: a factor
    within a width instead of a Gaussian of two distances, and no balance of the classes.

    Args:
        factor: weight of pixels near a boundary; that of all others is 1.
        width: distance to a pixel of another class, in pixels of the crop.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar
    """

    resizes = True  # logits to the mask, in bands of rows

    def __init__(
        self,
        factor: NotNegative = 5.0,
        width: Count = 3,
        ignore_index: Literal[255] = 255,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width ({width}) must be 1 or more")
        self.factor = factor
        self.width = width
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        target = Target(mask, ignore_index=self.ignore_index, align_corners=align_corners)
        near = near_boundary(mask, self.width, self.ignore_index)
        total = banded_cross_entropy(logits, target, 1 + (self.factor - 1) * near.float())
        return total / (mask != self.ignore_index).sum().clamp(min=1)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return labelled(pixels, self.ignore_index)


def near_boundary(mask: Tensor, width: int, ignore_index: int = 255) -> Tensor:
    """Return which pixels have a labelled pixel of another class within `width` rows and columns.

    Shape:
        mask (B, H, W) of integers -> (B, H, W) bool, false at void pixels
    """
    known = mask != ignore_index
    labels = mask.float()  # exact, and a type that every device can pool
    highest = _highest(labels.where(known, -1), width)
    lowest = -_highest(-labels, width)  # void is the largest of all labels
    return known & (highest > lowest)


def _highest(x: Tensor, width: int) -> Tensor:
    """Return the highest value (B, H, W) in the square around each pixel; rows, then columns."""
    side = 2 * width + 1
    rows = F.max_pool2d(x[:, None], (side, 1), 1, (width, 0))
    return F.max_pool2d(rows, (1, side), 1, (0, width))[:, 0]
