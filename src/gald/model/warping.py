"""Bilinear sampling of a feature map at moved positions, for modules that predict offsets."""

import torch
import torch.nn.functional as F
from torch import Tensor


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row and the column of every position of a map, in its dtype.

    Shape:
        x: (B, C, h, w) -> (h, 1), (w,)
    """
    h, w = x.shape[-2:]
    rows = torch.arange(h, device=x.device, dtype=x.dtype).unsqueeze(1)
    return rows, torch.arange(w, device=x.device, dtype=x.dtype)


def sample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read a map bilinearly at any places; places outside the map read its border.

    Half precision is too coarse for places in a large map: call it in float32, outside autocast.
    On a GPU its gradient is summed in no fixed order. If PyTorch must be deterministic, four
    gathers compute the same.

    Args:
        x: the feature map.
        rows: row of every place, in pixels; 0 is the centre of the first pixel.
        columns: column of every place.

    Shape:
        x (B, C, h, w), rows and columns (B, h', w') -> (B, C, h', w')
    """
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return sample_by_gathering(x, rows, columns)
    h, w = x.shape[-2:]
    # grid_sample's coordinates: -1 and 1 are the outer edges of the first and last pixel.
    places = torch.stack([(2 * columns + 1) / w - 1, (2 * rows + 1) / h - 1], dim=3)
    return F.grid_sample(x, places, padding_mode="border", align_corners=False)


def sample_by_gathering(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute `sample` by gathering the four pixels around every place."""
    h, w = x.shape[-2:]
    rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
    top, left = rows.floor(), columns.floor()
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for row, row_weight in ((top, 1 + top - rows), ((top + 1).clamp(max=h - 1), rows - top)):
        for column, weight in (
            (left, 1 + left - columns),
            ((left + 1).clamp(max=w - 1), columns - left),
        ):
            index = (row.long() * w + column.long()).flatten(1).unsqueeze(1)
            pixels = x.flatten(2).gather(2, index.expand(-1, x.shape[1], -1))
            share = (row_weight * weight).unsqueeze(1)  # (B, 1, h', w')
            total = total + share * pixels.unflatten(2, rows.shape[1:])
    return total


def warp(x: Tensor, offsets: Tensor) -> Tensor:
    """Read every position of a map at an offset, bilinearly, each channel group at its own.

    Args:
        x: the feature map.
        offsets: rows of all G groups, then columns of all G groups, in pixels; G divides C.

    Shape:
        x (B, C, h, w), offsets (B, 2G, h, w) -> (B, C, h, w)
    """
    groups = offsets.shape[1] // 2
    down, right = (part.flatten(0, 1) for part in offsets.split(groups, dim=1))  # (B * G, h, w)
    rows, columns = grid(x)
    parts = x.unflatten(1, (groups, -1)).flatten(0, 1)  # (B * G, C / G, h, w)
    return sample(parts, rows + down, columns + right).unflatten(0, (-1, groups)).flatten(1, 2)


def own_weight(offsets: Tensor) -> Tensor:
    """Return the bilinear weight of the position itself in what `warp` reads for it.

    1 means that it reads itself, 0 that it reads a place at least one row or column away. At the
    border, what is read outside the map counts as outside, although it is the border's value.

    Shape:
        offsets: (B, 2G, h, w) -> (B, G, h, w)
    """
    down, right = offsets.abs().chunk(2, dim=1)
    return (1 - down).clamp(min=0) * (1 - right).clamp(min=0)
