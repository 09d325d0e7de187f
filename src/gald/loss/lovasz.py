"""Lovasz-softmax loss: a convex surrogate of the intersection over union."""

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.loss.cross_entropy import labelled
from gald.loss.regions.groups import Classes, Over, check_options, regions


class Lovasz(nn.Module):
    """Mean over the classes of the Lovasz extension of 1 - IoU, at the errors of the pixels.

    The error of a pixel is |y - p|, with p the probability of the class and y its label, 0 or 1.
    For errors e_1 >= e_2 >= ... the loss is sum e_i (J_i - J_(i-1)), where J_i is 1 - IoU if the
    first i pixels are wrong and the others right. If all errors are 0 or 1, it is 1 - IoU. A group
    without labelled pixels has loss 0. Each class in the labels is sorted once, and the memory
    holds probabilities and factors of all classes at the size of the mask.

    Paper: "The Lovasz-Softmax loss", https://arxiv.org/abs/1705.08790.
    Deviation: over images by default, weighted by their labelled pixels, where the authors' default
    is a batch.

    Args:
        over: errors are ranked in each `image`, or in the `batch` of a forward pass; see
            `gald.loss.regions`.
        classes: mean over the classes `present` in the labels of an image or batch, or over `all`.
            An absent class then has its largest error as loss.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar in [0, 1]
    """

    resizes = True  # logits to the mask, in float32

    def __init__(
        self,
        over: Over = "image",
        classes: Classes = "present",
        ignore_index: Literal[255] = 255,
    ) -> None:
        super().__init__()
        check_options(over, classes)
        self.over: Over = over
        self.classes: Classes = classes
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        pixels = regions(logits, mask, self.over, align_corners, self.ignore_index)
        errors = (pixels.of_class.float() - pixels.probability).abs()  # (G, K, N)
        factors = torch.zeros_like(errors)
        counted = pixels.of_class.any(2)
        if self.classes == "all":
            counted = pixels.labelled.any(1)[:, None].expand_as(counted)
        # The one wait for the device: sorting the errors of absent classes would take longer.
        for group, k in counted.nonzero().tolist():
            known = pixels.labelled[group]
            factors[group, k] = jaccard_steps(
                errors[group, k].detach(), pixels.of_class[group, k], known
            )
        return pixels.mean((errors * factors).sum(2), self.classes)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return labelled(pixels, self.ignore_index)


def jaccard_steps(errors: Tensor, of_class: Tensor, labelled: Tensor) -> Tensor:
    """Return how much 1 - IoU grows when each pixel, after those of larger error, becomes wrong.

    Shape:
        errors (N,) in [0, 1]; of_class, labelled (N,) bool -> (N,), 0 at void pixels
    """
    order = errors.argsort(descending=True, stable=True)  # void may be anywhere: it adds to no sum
    of_class, other = of_class[order], (labelled & ~of_class)[order]
    # Sums of integers are exact, and in a fixed order on a GPU.
    hit, miss = of_class.cumsum(0), other.cumsum(0)
    kept, union = hit[-1] - hit, hit[-1] + miss
    # Differences of kept / union, without the rounding of nearly equal ratios.
    steps = torch.where(of_class, 1 / union.clamp(min=1), kept / (union * (union - 1)).clamp(min=1))
    steps = steps.where(~other | (union > 1), 1.0)  # 1 - IoU jumps from 0 to 1 at an absent class
    return torch.empty_like(errors).scatter_(0, order, steps.where(of_class | other, 0.0))
