"""The map by which local distribution decides, as one number per pixel."""

import torch
from torch import Tensor

from gald.inference.base import Inference
from gald.model.layers import resize
from gald.model.segmentor import Segmentor


def ld_map(model: Segmentor, image: Tensor, inference: Inference) -> Tensor | None:
    """The local distribution's map, one number per pixel, at the image's size.

    The mean over channels; of weights that sum to 1 the largest, since their mean is the same
    everywhere.

    Args:
        model: the network, in eval mode.
        image: (3, H, W).
        inference: how the network scores images, which says at what size it sees them.

    Returns:
        (H, W), or None where the model distributes nothing.
    """
    with torch.no_grad():
        values = model.distribution_map(model.aggregate(inference.at_network_size(image[None])))
    if values is None:
        return None
    return resize(in_one_channel(values), image.shape[-2:], model.align_corners)[0, 0]


def in_one_channel(values: Tensor) -> Tensor:
    """A map (B, C, h, w) in one channel: the mean, or the largest of weights that sum to 1."""
    values = values.float()
    return values.amax(1, keepdim=True) if sums_to_one(values) else values.mean(1, True)


def sums_to_one(values: Tensor) -> bool:
    """Whether the channels of a map (B, C, h, w) are weights of places, not shares of channels."""
    total = values.float().sum(1)
    return values.shape[1] > 1 and torch.allclose(total, torch.ones_like(total))
