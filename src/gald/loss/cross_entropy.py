"""Cross-entropy over labelled pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override


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
        class_weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        weight = None if class_weight is None else torch.tensor(list(class_weight))
        self.register_buffer("weight", weight, persistent=False)

    @override
    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        if self.weight is not None and len(self.weight) != logits.shape[1]:
            raise ValueError(
                f"class_weight has {len(self.weight)} factors for {logits.shape[1]} classes; "
                f"set loss.main.class_weight to {logits.shape[1]} factors, or to null"
            )
        mask = mask.long()
        total = F.cross_entropy(
            logits.float(),
            mask,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        valid = mask[mask != self.ignore_index]
        count = valid.numel() if self.weight is None else self.weight[valid].sum()
        # A crop can be all void; the mean over no pixels would be nan and ruin the training.
        return total / max(count, 1e-6)
