"""Dice loss of the class probabilities."""

from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from gald.loss.cross_entropy import labelled
from gald.loss.regions.groups import Classes, Over, check_options, regions
from gald.options.ranges import NotNegative


class Dice(nn.Module):
    """Mean over the classes of 1 - (2 sum p y + s) / (sum p + sum y + s).

    p is the probability of the class, y is 1 where it is the label and 0 elsewhere, s is `smooth`;
    the sums are over labelled pixels. A group without labelled pixels has loss 0. The memory holds
    the probabilities of all classes at the size of the mask, unlike that of `CrossEntropy`.

    Paper: "V-Net", https://arxiv.org/abs/1606.04797. Deviation: its sums in the denominator are of
    squares.

    Args:
        over: sums over each `image`, weighted by its labelled pixels, or over the `batch` of a
            forward pass; see `gald.loss.regions`.
        classes: mean over the classes `present` in the labels of an image or batch, or over `all`.
            An absent class then has loss 1 - s / (sum p + s).
        smooth: added to numerator and denominator, in pixels.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar in [0, 1]
    """

    resizes = True  # logits to the mask, in float32

    def __init__(
        self,
        over: Over = "image",
        classes: Classes = "present",
        smooth: NotNegative = 1.0,
        ignore_index: Literal[255] = 255,
    ) -> None:
        super().__init__()
        check_options(over, classes, smooth)
        self.over: Over = over
        self.classes: Classes = classes
        self.smooth = smooth
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        pixels = regions(logits, mask, self.over, align_corners, self.ignore_index)
        hit = (pixels.probability * pixels.of_class).sum(2)  # (G, K)
        total = (pixels.probability * pixels.labelled[:, None]).sum(2) + pixels.of_class.sum(2)
        # A group of void pixels has a total of 0; its loss does not count.
        score = (2 * hit + self.smooth) / (total + self.smooth).clamp(min=1e-6)
        return pixels.mean(1 - score, self.classes)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return labelled(pixels, self.ignore_index)
