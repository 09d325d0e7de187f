"""Reading and checking of images."""

from pathlib import Path

import cv2
import numpy as np

from gald.data.reading.complete import read_complete, read_head
from gald.data.reading.header import Header, read_header, read_orientation, read_size
from gald.data.reading.png import RGB, LazyArray, PngRows, by_rows
from gald.data.reading.sample_error import SampleError
from gald.install.extras import require
from gald.run.limits import refuse_pixels

READING = 2  # increase it when the same files give other pixels: derived files are made again
# Pixels in stored order, because label maps have no orientation; any depth, to refuse 16 bits.
STORED_ORDER = cv2.IMREAD_IGNORE_ORIENTATION
AS_STORED = cv2.IMREAD_COLOR_RGB | STORED_ORDER | cv2.IMREAD_ANYDEPTH


def read_image(path: Path) -> np.ndarray:
    """Read an image as RGB, in stored order whatever its orientation tag.

    Shape:
        returns: (H, W, 3) uint8
    """
    return np.asarray(open_image(path))


def open_image(path: Path) -> LazyArray:
    """Open an image like `read_image`; a png is decoded on slicing, if that saves work.

    Shape:
        returns: (H, W, 3) uint8
    """
    return open_photo(path)[0]


def open_photo(path: Path) -> tuple[LazyArray, int]:
    """Open an image in stored order, and return its EXIF orientation too, 1 to 8.

    Raises:
        SampleError: the file is damaged, or stores more than 8 bits per value.
    """
    return decode_photo(read_complete(path), path)


def decode_photo(data: bytes, path: Path) -> tuple[LazyArray, int]:
    """Decode the bytes of an image, and return its EXIF orientation too; see `open_photo`."""
    header = read_header(data)
    orientation = read_orientation(data) if header is None else header.orientation
    if header is not None and header.depth > 8:
        raise SampleError(too_deep(path, header.depth))
    refuse_large(read_size(data), f"image {path}")
    if data[25:26] == bytes([RGB]) and by_rows(data):
        return PngRows(data, SampleError(undecodable("image", path))), orientation
    if header is not None and header.kind == "jpg" and header.channels in (1, 3):
        return _decode_jpeg(data, path), orientation
    image = cv2.imdecode(np.frombuffer(data, np.uint8), AS_STORED)
    if image is None:
        raise SampleError(undecodable("image", path))
    if image.dtype != np.uint8:
        raise SampleError(too_deep(path, 8 * image.dtype.itemsize))
    return image, orientation


def _decode_jpeg(data: bytes, path: Path) -> np.ndarray:
    """Decode with the only decoder at hand that reports damage; others guess the lost pixels."""
    try:
        from kornia_rs.io import decode_image_jpegturbo
    except ImportError:
        require(f"image {path}, a jpg,", "data", "kornia_rs")
        raise
    try:
        return decode_image_jpegturbo(data, "rgb")
    except Exception:  # kornia has no exception of its own
        raise SampleError(
            f"image {path} is damaged inside: its jpg data breaks off or has invalid codes; copy "
            "or download it again"
        ) from None


def image_header(path: Path) -> Header | None:
    """Read the header of an image without decoding it; None for other formats than png and jpg.

    Raises:
        SampleError: the file is truncated, or stores more than 8 bits per value.
    """
    header = read_header(read_head(path))
    if header is not None and header.depth > 8:
        raise SampleError(too_deep(path, header.depth))
    if header is not None:
        refuse_large((header.height, header.width), f"image {path}")
    return header


def refuse_large(size: tuple[int, int] | None, what: str) -> None:
    """Raise a `SampleError` if a picture has too many pixels to be decoded.

    Args:
        size: height and width; None if they are unknown.
        what: the picture, with its path.
    """
    if size is None:
        return
    try:
        refuse_pixels(*size, what, "make it smaller or cut it into tiles")
    except ValueError as error:
        raise SampleError(str(error)) from None


def undecodable(what: str, path: Path) -> str:
    """Return the message about an image or a mask that cannot be decoded."""
    return f"{what} {path} cannot be decoded; replace it by a valid png" + (
        " or jpg" if what == "image" else " (8-bit grey)"
    )


def too_deep(path: Path, depth: int) -> str:
    """Return the message about an image of more than 8 bits per value."""
    return (
        f"image {path} stores {depth} bits per value, and networks take 8; convert it to 8 bits, "
        "for example by dividing by its largest value / 255"
    )
