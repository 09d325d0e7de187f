"""LD map: the map computed by local distribution, as one number per pixel."""

import torch
from torch import Tensor

from gald.inference.base import Inference
from gald.model.layers import resize
from gald.model.network import Network


def ld_map(model: Network, image: Tensor, inference: Inference) -> Tensor | None:
    """Compute the LD map at the image's size.

    It is the mean over channels. If the channels are weights that sum to 1, it is the largest
    weight, because their mean is the same everywhere.

    Args:
        model: the network, in eval mode.
        image: (3, H, W).
        inference: inference mode of the network; it sets the size of the image in the network.

    Returns:
        (H, W), or None if the local distribution has no map.
    """
    with torch.no_grad():
        values = model.ld_map(inference.at_network_size(image[None]))
    if values is None:
        return None
    return resize(in_one_channel(values), image.shape[-2:], model.align_corners)[0, 0]


def in_one_channel(values: Tensor) -> Tensor:
    """Reduce a map (B, C, h, w) to one channel: the mean, or the largest if weights sum to 1."""
    values = values.float()
    return values.amax(1, keepdim=True) if sums_to_one(values) else values.mean(1, True)


def sums_to_one(values: Tensor) -> bool:
    """Return whether the channels of a map (B, C, h, w) are weights that sum to 1."""
    total = values.float().sum(1)
    return values.shape[1] > 1 and torch.allclose(total, torch.ones_like(total))
