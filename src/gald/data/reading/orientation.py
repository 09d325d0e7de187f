"""Turning of photos by their EXIF orientation, so that image and mask agree.

A camera stores the pixels as its sensor reads them, and a tag that says how to turn them. Viewers
and most labelling tools turn the photo first; other tools label the stored pixels.
"""

import shlex
from pathlib import Path

import numpy as np

from gald.data.reading.header import UPRIGHT
from gald.data.reading.image import open_photo
from gald.data.reading.sample_error import SampleError

_SWAPS_SIDES = (5, 6, 7, 8)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels as a viewer shows them.

    Args:
        pixels: image or label map in stored order.
        orientation: 1 to 8 as EXIF counts them.

    Shape:
        pixels: (H, W) or (H, W, C); returns (W, H) or (W, H, C) for the orientations 5 to 8
    """
    if orientation == UPRIGHT:
        return pixels
    if orientation in _SWAPS_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def mask_is_upright(
    stored: tuple[int, ...], mask: tuple[int, ...], orientation: int, image: Path, path: Path
) -> bool:
    """Return whether a mask follows the upright photo instead of its stored pixels.

    Only the size of the mask can tell, so a photo that keeps its size when it is turned is refused.

    Args:
        stored: height and width of the stored photo.
        mask: height and width of the mask.
        orientation: 2 to 8 as EXIF counts them.
        image: path of the photo, for the message.
        path: path of the mask, for the message.

    Raises:
        SampleError: the size does not tell.
    """
    turned = stored[::-1] if orientation in _SWAPS_SIDES else stored
    if turned == stored == mask:
        raise SampleError(
            f"image {image} has the EXIF orientation {orientation}, and the size of mask {path} "
            "does not show whether its labels follow the stored or the turned photo; save the "
            f"photo without the tag as the labels see it, for the turned one with {_command(image)}"
        )
    return mask != stored


def read_upright(path: Path) -> np.ndarray:
    """Read an image as RGB, turned as a viewer shows it.

    Shape:
        returns: (H, W, 3) uint8
    """
    image, orientation = open_photo(path)
    return upright(np.asarray(image), orientation)


def _command(image: Path) -> str:
    code = "import sys; from PIL import Image, ImageOps; p = sys.argv[1]; "
    code += "ImageOps.exif_transpose(Image.open(p)).save(p, quality=95)"
    return f'python -c "{code}" {shlex.quote(str(image))}'
