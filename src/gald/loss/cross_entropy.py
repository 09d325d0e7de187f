"""Cross-entropy over labelled pixels."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.options.ranges import Length, NotNegative, Share


class CrossEntropy(nn.Module):
    """Mean cross-entropy over the labelled pixels; zero instead of nan if all pixels are void.

    Args:
        class_weight: one factor per class, or null for equal weights.
        label_smoothing: share of the target that is spread over all classes.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, H, W), mask (B, H, W) of integers -> scalar
    """

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
    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        if self.weight is not None and len(self.weight) != logits.shape[1]:
            raise ValueError(
                f"class_weight has {len(self.weight)} factors for {logits.shape[1]} classes; "
                f"set loss.main.class_weight to {logits.shape[1]} factors, or to null"
            )
        total = cross_entropy(
            logits,
            mask,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        # A crop can be all void; the mean over no pixels would be nan and ruin the training.
        valid = mask != self.ignore_index
        if self.weight is None:
            return total / valid.sum().clamp(min=1)
        weights = self.weight[mask.long().where(valid, 0)] * valid
        return total / weights.sum().clamp(min=1e-6)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        if self.weight is None:
            return labelled(pixels, self.ignore_index)
        classes = len(self.weight)
        weight = self.weight.new_zeros(len(pixels))
        weight[:classes] = self.weight
        weight[self.ignore_index] = 0
        return (weight.double() * pixels).sum()


def labelled(pixels: Tensor, ignore_index: int = 255) -> Tensor:
    """Return the number of labelled pixels, from the number of pixels per label (256,)."""
    return pixels.sum() - pixels[ignore_index]


def cross_entropy(logits: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """Compute `F.cross_entropy` in float32, also where PyTorch must be deterministic.

    CUDA has no deterministic kernel for maps, but has one for a list of pixels.

    Args:
        logits: (B, K, H, W).
        mask: (B, H, W) of integers.
        options: further arguments of `F.cross_entropy`.
    """
    logits, target = logits.float(), mask.long()
    if not torch.are_deterministic_algorithms_enabled():
        return F.cross_entropy(logits, target, **options)
    loss = F.cross_entropy(logits.movedim(1, -1).flatten(0, -2), target.flatten(), **options)
    return loss if loss.ndim == 0 else loss.view(target.shape)
