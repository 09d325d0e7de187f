"""Cross-entropy over the hard pixels (online hard example mining)."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.loss.cross_entropy import cross_entropy, labelled


class OhemCrossEntropy(nn.Module):
    """Mean cross-entropy over the pixels with the lowest probability of their true class.

    Each image chooses its own pixels: those whose true class has a probability of at most
    `threshold`. If fewer than `min_kept` pixels satisfy this, the `min_kept` pixels with the lowest
    probability count. If an image has `min_kept` or fewer labelled pixels, all of them count. The
    loss is the mean of the images' means, weighted by their labelled pixels. So it is the same for
    any number of devices and accumulated batches.

    Paper: "Training Region-based Object Detectors with Online Hard Example Mining",
    https://arxiv.org/abs/1604.03540.
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/core/loss.py:OhemCrossEntropy2dTensor. Deviations: the
    reference chooses among all pixels of a device's batch, which holds one image in the authors'
    recipe (8 GPUs, batch 8), where both are equal; and a crop that is all void gives zero instead
    of nan.

    Args:
        threshold: probability of the true class above which a pixel is easy, in [0, 1].
        min_kept: minimum number of pixels of an image that count; 0 leaves the choice to the
            threshold.
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
        if min_kept < 0:
            raise ValueError(f"min_kept ({min_kept}) is no number of pixels; choose 0 or more")
        self.threshold = threshold
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        pixel_loss = cross_entropy(logits, mask, ignore_index=self.ignore_index, reduction="none")
        labelled_pixels = mask != self.ignore_index
        total = pixel_loss.sum() * 0  # keeps the graph if all pixels are void
        for losses, valid in zip(pixel_loss, labelled_pixels, strict=True):
            losses = losses[valid]
            hard = self._hard(losses)
            total = total + hard.sum() / max(hard.numel(), 1) * losses.numel()
        return total / max(int(labelled_pixels.sum()), 1)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return labelled(pixels, self.ignore_index)

    def _hard(self, losses: Tensor) -> Tensor:
        if losses.numel() <= self.min_kept:
            return losses
        probability = torch.exp(-losses.detach())
        highest = torch.tensor(self.threshold, device=losses.device)
        if self.min_kept > 0:
            highest = highest.maximum(probability.kthvalue(self.min_kept).values)
        return losses[probability <= highest]
