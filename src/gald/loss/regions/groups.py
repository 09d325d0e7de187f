"""Probabilities and labels of the pixels of each image, or of a batch."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gald.model.layers import resize

Over = Literal["image", "batch"]
Classes = Literal["present", "all"]


class Regions(NamedTuple):
    """Groups of N pixels: one per image, or one for the whole batch.

    Attributes:
        probability: (G, K, N) float32, the softmax of the resized scores.
        of_class: (G, K, N) bool, whether the pixel has this label; false at void.
        labelled: (G, N) bool, whether the pixel is not void.
    """

    probability: Tensor
    of_class: Tensor
    labelled: Tensor

    def mean(self, losses: Tensor, classes: Classes) -> Tensor:
        """Return the mean of losses (G, K) over the classes, then over the labelled pixels.

        Args:
            losses: one loss for each group and class.
            classes: `present` counts only the classes in the labels of the group.
        """
        pixels = self.labelled.sum(1)  # (G,)
        counts = self.of_class.any(2) if classes == "present" else (pixels > 0)[:, None]
        counts = counts.expand_as(losses)
        means = (losses * counts).sum(1) / counts.sum(1).clamp(min=1)
        return (means * pixels).sum() / pixels.sum().clamp(min=1)


def regions(
    logits: Tensor, mask: Tensor, over: Over, align_corners: bool = False, void: int = 255
) -> Regions:
    """Resize scores (B, K, h, w) to the mask (B, H, W) in float32, and group the pixels."""
    with torch.autocast(logits.device.type, enabled=False):
        scores = resize(logits.float(), mask.shape[-2:], align_corners)
        probability = scores.softmax(1).flatten(2)  # (B, K, H*W)
    labels = mask.flatten(1).long()
    labelled = labels != void
    # Each pixel writes to one class, so this is deterministic; a label beyond K is an error.
    of_class = torch.zeros_like(probability, dtype=torch.bool)
    of_class.scatter_(1, labels.where(labelled, 0)[:, None], labelled[:, None])
    if over == "batch":
        probability, of_class = (x.movedim(1, 0).flatten(1)[None] for x in (probability, of_class))
        labelled = labelled.flatten()[None]
    return Regions(probability, of_class, labelled)


def check_options(over: str, classes: str, smooth: float | None = None) -> None:
    """Refuse options of a loss of regions that are unknown or have no effect."""
    if over not in get_args(Over):
        raise ValueError(f"over ({over}) must be image or batch")
    if classes not in get_args(Classes):
        raise ValueError(f"classes ({classes}) must be present or all")
    if classes == "all" and smooth == 0:
        raise ValueError(
            "with classes=all and smooth=0, an absent class has loss 1 and no gradient; set "
            "smooth=1.0 or classes=present"
        )
