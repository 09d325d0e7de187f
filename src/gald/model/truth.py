"""Boundaries of the ground truth, for the one distribution that reads them; see `ld.oracle`.

They travel as a fourth channel of the image, so that every inference mode crops, resizes and
batches them with it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOID = 255


def reads_truth(model: nn.Module) -> bool:
    """Return whether a network reads the ground truth."""
    return getattr(getattr(model, "ld", None), "reads", None) == "truth"


def refuse_silent_leak(model: nn.Module, other_images: bool = False) -> None:
    """Refuse a network that reads the ground truth, unless its options say that this is known.

    Args:
        model: the network.
        other_images: whether the boundaries of other images are at hand.

    Raises:
        ValueError: `leak` is not set, or `other_image` is and cannot be done.
    """
    ld: Any = getattr(model, "ld", None)
    if not reads_truth(model):
        return
    if not ld.leak:
        raise ValueError(
            "model/ld=oracle reads the boundaries of the ground truth, in evaluation too, so its "
            "scores are an upper bound and not those of a method; set model.ld.leak=true to run "
            "it, or model/ld=leaky_oracle in a sweep"
        )
    if ld.other_image and not other_images:
        raise ValueError(
            "model.ld.other_image=true needs the boundaries of other images, which only gald probe "
            "has; set model.ld.other_image=false, or use gald probe"
        )


def boundaries(mask: Tensor) -> Tensor:
    """Return which pixels have a label and another class among their eight neighbours.

    Args:
        mask: train ids, void 255; void is no class.

    Shape:
        mask: (B, H, W) -> (B, H, W) bool
    """
    void = mask == VOID
    ids = mask.float()[:, None]
    highest = F.max_pool2d(ids.masked_fill(void[:, None], -1.0), 3, 1, 1)
    lowest = -F.max_pool2d((-ids).masked_fill(void[:, None], -256.0), 3, 1, 1)
    return (highest > lowest)[:, 0] & ~void


def shown_to(model: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Return an image as a network takes it: with the true boundaries if it reads them.

    Shape:
        image: (B, 3, H, W), mask: (B, H, W) -> (B, 3, H, W) or (B, 4, H, W)
    """
    if not reads_truth(model):
        return image
    full = 1 if image.is_floating_point() else 255
    return torch.cat([image, (boundaries(mask)[:, None] * full).to(image.dtype)], dim=1)
