"""Focal loss: cross-entropy with less weight on pixels that are classified well."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.loss.bands.cross_entropy import Target, first_pass, second_pass
from gald.loss.cross_entropy import weight_sum, weights_of
from gald.options.ranges import Length, NotNegative


class Focal(nn.Module):
    """Mean of (1 - p) ** gamma * -log p over the labelled pixels, p that of the true class.

    With gamma = 0 it is `CrossEntropy`. Zero instead of nan if all pixels are void.

    Paper: "Focal Loss for Dense Object Detection", https://arxiv.org/abs/1708.02002, Eq. 4 and 5.
    Deviations: a softmax over the classes; with weights, a weighted mean, as in `CrossEntropy`.

    Args:
        gamma: exponent; larger values leave less weight to easy pixels.
        class_weight: one factor per class (alpha of the paper), or null for equal weights.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar
    """

    resizes = True  # logits to the mask, in bands of rows
    weight: Tensor | None

    def __init__(
        self,
        gamma: NotNegative = 2.0,
        class_weight: Annotated[Sequence[NotNegative], Length(1)] | None = None,
        ignore_index: Literal[255] = 255,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma ({gamma}) must be 0 or more")
        self.gamma = gamma
        self.ignore_index = ignore_index
        weight = None if class_weight is None else torch.tensor(list(class_weight)).float()
        self.register_buffer("weight", weight, persistent=False)

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        target = Target(mask, ignore_index=self.ignore_index, align_corners=align_corners)
        losses, softmax = first_pass(logits, target)  # (B, H, W)
        true, wrong = torch.exp(-losses), -torch.expm1(-losses)  # p and 1 - p
        easy = wrong**self.gamma
        # The gradient of f(l) is f'(l) times that of l, the cross-entropy of the pixel.
        slope = easy * (1 + self.gamma * true * torch.where(wrong > 0, losses / wrong, 1.0))
        weights = weights_of(mask, self.weight, logits.shape[1], self.ignore_index)
        value = (easy * losses * weights).sum()
        total = second_pass(value, logits, target, slope * weights, softmax)
        return total / weights.sum().clamp(min=1e-6)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return weight_sum(pixels, self.weight, self.ignore_index)
