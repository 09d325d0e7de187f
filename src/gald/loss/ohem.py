"""Cross-entropy over the hard pixels (online hard example mining)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override


class OhemCrossEntropy(nn.Module):
    """Mean cross-entropy over the pixels with the lowest probability of their true class.

    A pixel counts if the probability of its true class is at most `threshold`. If fewer than
    `min_kept` pixels satisfy this, the `min_kept` pixels with the lowest probability count. If
    there are `min_kept` or fewer labelled pixels, all of them count.

    Paper: "Training Region-based Object Detectors with Online Hard Example Mining",
    https://arxiv.org/abs/1604.03540.
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/core/loss.py:OhemCrossEntropy2dTensor (same choice
    of pixels; here a crop that is all void gives zero instead of nan).

    Args:
        threshold: probability of the true class above which a pixel is easy, in [0, 1].
        min_kept: minimum number of pixels that count, over the whole batch of one device.
        ignore_index: label of void pixels.

    Shape:
        logits (B, K, H, W), mask (B, H, W) of integers -> scalar
    """

    def __init__(
        self, threshold: float = 0.7, min_kept: int = 100_000, ignore_index: int = 255
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold ({threshold}) is no probability; choose it in [0, 1]")
        self.threshold = threshold
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        pixel_loss = F.cross_entropy(
            logits.float(), mask.long(), ignore_index=self.ignore_index, reduction="none"
        )
        pixel_loss = pixel_loss[mask != self.ignore_index]
        if pixel_loss.numel() > self.min_kept > 0:
            probability = torch.exp(-pixel_loss.detach())
            kth = probability.kthvalue(self.min_kept).values
            pixel_loss = pixel_loss[probability <= kth.clamp(min=self.threshold)]
        return pixel_loss.sum() / max(pixel_loss.numel(), 1)
