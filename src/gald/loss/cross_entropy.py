"""Cross-entropy over labelled pixels."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.loss.bands.cross_entropy import Target, banded_cross_entropy
from gald.options.ranges import Length, NotNegative, Share


class CrossEntropy(nn.Module):
    """Mean cross-entropy over the labelled pixels; zero instead of nan if all pixels are void.

    Args:
        class_weight: one factor per class, or null for equal weights.
        label_smoothing: share of the target that is spread over all classes.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar
    """

    resizes = True  # logits to the mask, in bands of rows
    weight: Tensor | None

    def __init__(
        self,
        class_weight: Annotated[Sequence[NotNegative], Length(1)] | None = None,
        label_smoothing: Share = 0.0,
        ignore_index: Literal[255] = 255,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        weight = None if class_weight is None else torch.tensor(list(class_weight)).float()
        self.register_buffer("weight", weight, persistent=False)

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        weights = weights_of(mask, self.weight, logits.shape[1], self.ignore_index)
        total = banded_cross_entropy(
            logits,
            Target(mask, self.weight, self.label_smoothing, self.ignore_index, align_corners),
        )
        # A crop can be all void; the mean over no pixels would be nan and ruin the training.
        return total / weights.sum().clamp(min=1e-6)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return weight_sum(pixels, self.weight, self.ignore_index)


def weights_of(mask: Tensor, weight: Tensor | None, classes: int, ignore_index: int) -> Tensor:
    """Return the weight of each pixel's class (B, H, W), 0 at void; bools if there are no weights.

    Raises:
        ValueError: the number of weights is not that of the classes.
    """
    if weight is None:
        return mask != ignore_index
    if len(weight) != classes:
        raise ValueError(
            f"class_weight has {len(weight)} factors for {classes} classes; "
            f"set loss.main.class_weight (in loss=combined, that of loss.main.losses.NAME) to "
            f"{classes} factors, or to null"
        )
    of_label = F.pad(weight, (0, ignore_index + 1 - classes))  # 0 for void
    return of_label.index_select(0, mask.flatten().int()).view(mask.shape)


def weight_sum(pixels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """Return the weights of all labelled pixels, from the number of pixels per label (256,)."""
    if weight is None:
        return labelled(pixels, ignore_index)
    weights = weight.new_zeros(len(pixels))  # 0 for void
    weights[: len(weight)] = weight
    return (weights.double() * pixels).sum()


def labelled(pixels: Tensor, ignore_index: int = 255) -> Tensor:
    """Return the number of labelled pixels, from the number of pixels per label (256,)."""
    return pixels.sum() - pixels[ignore_index]
