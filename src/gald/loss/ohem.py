"""Cross-entropy over the hard pixels (online hard example mining)."""

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.loss.bands.cross_entropy import Target, first_pass, second_pass
from gald.loss.cross_entropy import labelled
from gald.options.ranges import Fraction, Whole


class OhemCrossEntropy(nn.Module):
    """Mean cross-entropy over the pixels with the lowest probability of their true class.

    A pixel counts if the probability of its true class is at most `threshold`. If fewer than
    `min_kept` pixels satisfy this, the `min_kept` pixels with the lowest probability count. If
    there are `min_kept` or fewer labelled pixels, all of them count.

    Over a `batch`, the pixels are chosen among all images of a forward pass, so the loss depends on
    how many images a device computes at once. Over an `image`, each image chooses its own pixels,
    and the loss is the mean of the images' means, weighted by their labelled pixels. Then it is the
    same for any number of devices and accumulated batches.

    Paper: "Training Region-based Object Detectors with Online Hard Example Mining",
    https://arxiv.org/abs/1604.03540.
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/core/loss.py:OhemCrossEntropy2dTensor, which chooses
    over a batch; the authors' recipe has one image on each GPU, where both are equal. Deviation: a
    crop that is all void gives zero instead of nan.

    Args:
        threshold: probability of the true class above which a pixel is easy, in [0, 1].
        min_kept: minimum number of pixels that count, of an image or a batch; 0 leaves the choice
            to the threshold.
        ignore_index: label of void pixels.
        over: `image` or `batch`.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar
    """

    resizes = True  # logits to the mask, in bands of rows

    def __init__(
        self,
        threshold: Fraction = 0.7,
        min_kept: Whole = 100_000,
        ignore_index: Literal[255] = 255,
        over: Literal["image", "batch"] = "batch",
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold ({threshold}) is no probability; choose it in [0, 1]")
        if min_kept < 0:
            raise ValueError(f"min_kept ({min_kept}) is no number of pixels; choose 0 or more")
        if over not in ("image", "batch"):
            raise ValueError(f"over ({over}) must be image or batch")
        self.over = over
        self.threshold = threshold
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        target = Target(mask, ignore_index=self.ignore_index, align_corners=align_corners)
        losses, softmax = first_pass(logits, target)
        valid = mask != self.ignore_index
        if self.over == "image":
            groups = zip(losses, valid, strict=True)
            hard = torch.stack([self._hard(*group) for group in groups])
            pixels, hard_pixels = (x.sum((1, 2), keepdim=True) for x in (valid, hard))
        else:
            hard = self._hard(losses, valid)
            pixels, hard_pixels = valid.sum(), hard.sum()
        # The factors of a group sum to its labelled pixels.
        factor = hard * (pixels / hard_pixels.clamp(min=1))
        value = losses.mul_(factor).sum()
        del losses  # the second pass needs the memory
        total = second_pass(value, logits, target, factor, softmax)
        return total / valid.sum().clamp(min=1)

    def normaliser(self, pixels: Tensor) -> Tensor:
        """Return what the mean divides by, from the number of pixels per label (256,)."""
        return labelled(pixels, self.ignore_index)

    def _hard(self, losses: Tensor, valid: Tensor) -> Tensor:
        """Return which pixels of a group count."""
        if self.min_kept >= losses.numel():
            return valid
        probability = losses.neg().exp_()  # 1 for void, so that no other pixel ranks behind it
        highest = torch.full((), self.threshold, device=losses.device)
        if self.min_kept > 0:
            lowest = probability.flatten().topk(self.min_kept, largest=False, sorted=False)
            highest = highest.maximum(lowest.values.amax())
        return valid & (probability <= highest)
