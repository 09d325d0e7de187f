"""Functions on the k x k neighbourhood of every position, for modules that weight it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbours(x: Tensor, kernel_size: int) -> list[Tensor]:
    """Return one shifted map per cell of a k x k window, row by row.

    All are views of one padded copy, where unfold would make K copies. Cells outside the map are 0.

    Args:
        x: the feature map.
        kernel_size: side k of the window, odd; K = k * k.

    Shape:
        x: (B, C, h, w) -> K maps (B, C, h, w)
    """
    h, w = x.shape[-2:]
    padded = F.pad(x, (kernel_size // 2,) * 4)
    return [
        padded[..., row : row + h, column : column + w]
        for row in range(kernel_size)
        for column in range(kernel_size)
    ]


def softmax_inside(logits: Tensor, kernel_size: int) -> Tensor:
    """Turn the scores of each window into weights that sum to 1, with 0 outside the map.

    Args:
        logits: one score per cell, in the order of `neighbours`.
        kernel_size: side k of the window; K = k * k.

    Shape:
        logits: (B, K, h, w) -> (B, K, h, w)
    """
    inside = torch.cat(neighbours(torch.ones_like(logits[:1, :1]), kernel_size), dim=1) > 0
    return logits.masked_fill(~inside, -torch.inf).softmax(dim=1)


def weighted_sum(x: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
    """Sum the window around every position, each cell multiplied by its weight.

    Args:
        x: the feature map.
        weights: one weight per cell, shared by all channels.
        kernel_size: side k of the window; K = k * k.

    Shape:
        x (B, C, h, w), weights (B, K, h, w) -> (B, C, h, w), in the dtype of weights
    """
    total = torch.zeros_like(x, dtype=weights.dtype)
    for cell, weight in zip(neighbours(x, kernel_size), weights.split(1, dim=1), strict=True):
        total = total + weight * cell
    return total
