"""Contours between classes in a label map, and distances to them."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gald.data.labels import VOID
from gald.metrics.base import Bytes

WIDTHS = "width, px or share of the diagonal"  # axis label of boundary scores
_SQUARE = np.ones((3, 3), np.uint8)


def contour(labels: Bytes, edge: bool = False) -> NDArray[np.bool_]:
    """Mark the pixels that have a pixel of another class among their eight neighbours.

    The class of void pixels (255) is unknown, so void does not count as another class and has no
    contour itself.

    Args:
        labels: train ids (H, W).
        edge: whether the pixels at the edge of the image are contour too.
    """
    # Both filters ignore void: it is the largest label for erode, and wraps around to 0 for dilate.
    lowest = cv2.erode(labels, _SQUARE)
    highest = cv2.dilate(labels + np.uint8(1), _SQUARE) - np.uint8(1)
    marked = lowest != highest
    if edge:
        marked[[0, -1]] = True
        marked[:, [0, -1]] = True
    marked[labels == VOID] = False
    return marked


def distance_to(found: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Compute the Euclidean distance from each pixel to the nearest marked one, or infinity."""
    if not found.any():
        return np.full(found.shape, np.inf, np.float32)
    unmarked = (~found).view(np.uint8)
    away = cv2.distanceTransform(unmarked, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return away.astype(np.float32, copy=False)


def check_widths(widths: Sequence[float]) -> tuple[float, ...]:
    """Return the widths if each is a whole number of pixels or a share below 1 of the diagonal.

    Raises:
        ValueError: a width is neither.
    """
    for width in widths:
        if width <= 0 or (width >= 1 and width != int(width)):
            raise ValueError(
                f"width {width:g} is neither whole pixels nor a share below 1 of the image's "
                "diagonal; choose for example 3 or 0.02"
            )
    return tuple(widths)


def diagonal(shape: tuple[int, ...]) -> float:
    """Compute the length of the image's diagonal in pixels."""
    return math.hypot(*shape)


def width_index(widths: Sequence[float], key: str) -> int:
    """Return which width a key such as `boundary_f/3` or `boundary_f/3/road` is of."""
    return [f"{width:g}" for width in widths].index(key.split("/")[1])


def width_label(place: str) -> str:
    """Format a width for readers: `3` as `3 px`, `0.02` as `2% wide`, other text unchanged."""
    try:
        width = float(place)
    except ValueError:
        return place
    return f"{place} px" if width >= 1 else f"{100 * width:g}% wide"
