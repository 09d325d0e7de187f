"""Where classes meet, and how far a pixel is from there."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gald.data.labels import VOID
from gald.metrics.base import Bytes

WIDTHS = "width, px or share of the diagonal"  # along which scores at boundaries are drawn
_SQUARE = np.ones((3, 3), np.uint8)


def contour(labels: Bytes, edge: bool = False) -> NDArray[np.bool_]:
    """Mark the pixels that have one of another class among their eight neighbours.

    Nothing is known about void (255), so it is no other class and has no contour itself.

    Args:
        labels: train ids (H, W).
        edge: whether the pixels at the edge of the image are contour as well.
    """
    # Void is the largest label to one filter and, wrapped around, the smallest to the other.
    lowest = cv2.erode(labels, _SQUARE)
    highest = cv2.dilate(labels + np.uint8(1), _SQUARE) - np.uint8(1)
    found = lowest != highest
    if edge:
        found[[0, -1]] = True
        found[:, [0, -1]] = True
    found[labels == VOID] = False
    return found


def distance_to(found: NDArray[np.bool_], kings_moves: bool = False) -> NDArray[np.float32]:
    """Distance in pixels from each pixel to the nearest marked one; infinite where none is.

    Args:
        found: marked pixels (H, W).
        kings_moves: count a diagonal step as one, instead of measuring in a straight line.
    """
    if not found.any():
        return np.full(found.shape, np.inf, np.float32)
    unmarked = (~found).view(np.uint8)
    kind = (cv2.DIST_C, cv2.DIST_MASK_3) if kings_moves else (cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return cv2.distanceTransform(unmarked, *kind).astype(np.float32, copy=False)


def check_widths(widths: Sequence[float]) -> tuple[float, ...]:
    """The widths, if each is a number of pixels or a share of the diagonal.

    Raises:
        ValueError: one is neither.
    """
    for width in widths:
        if width <= 0 or (width >= 1 and width != int(width)):
            raise ValueError(
                f"width {width:g} is neither whole pixels nor a share below 1 of the image's "
                "diagonal; choose 3 or 0.02, say"
            )
    return tuple(widths)


def diagonal(shape: tuple[int, ...]) -> float:
    """The image's diagonal in pixels."""
    return math.hypot(*shape)


def width_label(place: str) -> str:
    """Name a width for people: `3` is `3 px`, `0.02` is `2% wide`, other words stay."""
    try:
        width = float(place)
    except ValueError:
        return place
    return f"{place} px" if width >= 1 else f"{100 * width:g}% wide"
