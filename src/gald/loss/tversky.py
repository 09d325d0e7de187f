"""Tversky loss: dice with separate weights of false positives and false negatives."""

from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from gald.loss.cross_entropy import labelled
from gald.loss.regions.groups import Classes, Over, check_options, regions
from gald.options.ranges import NotNegative, Positive


class Tversky(nn.Module):
    """Mean over the classes of (1 - (TP + s) / (TP + alpha FP + beta FN + s)) ** gamma.

    With p the probability of the class and y its label, 0 or 1: TP = sum p y, FP = sum p (1 - y),
    FN = sum (1 - p) y over labelled pixels; s is `smooth`. A beta above alpha favours recall.
    alpha = beta = 0.5 is dice with twice its `smooth`, alpha = beta = 1 the soft Jaccard loss. A
    group without labelled pixels has loss 0. The memory holds the probabilities of all classes at
    the size of the mask, unlike that of `CrossEntropy`.

    Paper: "Tversky loss function for image segmentation using 3D fully convolutional deep
    networks", https://arxiv.org/abs/1706.05721; gamma from "A Novel Focal Tversky loss function
    with improved Attention U-Net for lesion segmentation", https://arxiv.org/abs/1810.07842, where
    the exponent is 1 / gamma.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: exponent of the loss of each class.
        over: sums over each `image`, weighted by its labelled pixels, or over the `batch` of a
            forward pass; see `gald.loss.regions`.
        classes: mean over the classes `present` in the labels of an image or batch, or over `all`.
        smooth: added to numerator and denominator, in pixels.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar in [0, 1]
    """

    resizes = True  # logits to the mask, in float32

    def __init__(
        self,
        alpha: NotNegative = 0.3,
        beta: NotNegative = 0.7,
        gamma: Positive = 1.0,
        over: Over = "image",
        classes: Classes = "present",
        smooth: NotNegative = 1.0,
        ignore_index: Literal[255] = 255,
    ) -> None:
        super().__init__()
        check_options(over, classes, smooth)
        if alpha == beta == 0:
            raise ValueError(
                "with alpha=0 and beta=0 every prediction has loss 0; set alpha=0.3 and beta=0.7"
            )
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.over: Over = over
        self.classes: Classes = classes
        self.smooth = smooth
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        pixels = regions(logits, mask, self.over, align_corners, self.ignore_index)
        hit = (pixels.probability * pixels.of_class).sum(2)  # (G, K)
        false = (pixels.probability * pixels.labelled[:, None]).sum(2) - hit
        missed = pixels.of_class.sum(2) - hit
        whole = hit + self.alpha * false + self.beta * missed + self.smooth
        # A group of void pixels has a whole of 0; its loss does not count.
        losses = 1 - (hit + self.smooth) / whole.clamp(min=1e-6)
        if self.gamma != 1:  # the gradient of a power below 1 is infinite at 0
            losses = losses.clamp(min=1e-6) ** self.gamma
        return pixels.mean(losses, self.classes)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return labelled(pixels, self.ignore_index)
