"""Reading and checking of label maps."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from gald.data.reading.complete import read_complete, read_head
from gald.data.reading.header import PNG, Header, read_header
from gald.data.reading.image import (
    AS_STORED,
    STORED_ORDER,
    decode_photo,
    refuse_large,
    too_deep,
    undecodable,
)
from gald.data.reading.listing import IMAGE_SUFFIXES
from gald.data.reading.png import GREY, PALETTE, RGB, LazyArray, PngRows, by_rows
from gald.data.reading.sample_error import SampleError

_COLOUR_TYPES = {RGB: "an RGB", 4: "a grey+alpha", 6: "an RGBA"}


def read_labels(path: Path) -> np.ndarray:
    """Read the stored labels of a png: grey values or palette indices of 1 to 16 bits.

    An RGB or transparent png is read if it is grey and opaque; then nothing is lost.

    Shape:
        returns: (H, W) uint8
    """
    return np.asarray(open_labels(path))


def open_labels(path: Path) -> LazyArray:
    """Open stored labels like `read_labels`; decoded on slicing, if that saves work.

    Shape:
        returns: (H, W) uint8
    """
    data = read_complete(path)
    refuse_lossy(data, path)
    header = read_header(data)
    if header is None:
        raise SampleError(undecodable("mask", path))
    refuse_large((header.height, header.width), f"mask {path}")
    kind = data[25]
    if header.depth == 8 and kind == GREY and by_rows(data):
        return PngRows(data, SampleError(undecodable("mask", path)))
    if header.depth < 8 or kind == PALETTE:
        return _indices(data, header, path)
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | STORED_ORDER)
    if labels is None:
        raise SampleError(undecodable("mask", path))
    if labels.ndim == 3:  # also grey with a transparent value, which is no colour
        grey = kind == GREY
        labels = labels[..., 0].copy() if grey else _grey_channel(labels, kind, path)
    if labels.dtype == np.uint16:
        if (largest := labels.max()) > 255:
            row, column = np.argwhere(labels == largest)[0]
            raise SampleError(
                f"mask {path} is a 16-bit png with label {largest} in row {row}, column {column}; "
                "save it as 8-bit grey png with labels from 0 to 255"
            )
        labels = labels.astype(np.uint8)
    return labels


def read_colours(path: Path) -> np.ndarray:
    """Read a mask that stores colours, as RGB; 16 bits per value are read if 8 lose nothing.

    Shape:
        returns: (H, W, 3) uint8
    """
    data = read_complete(path)
    refuse_lossy(data, path)
    header = read_header(data)
    if header is not None and header.depth == 16:
        return _in_8_bits(data, header, path)
    return np.asarray(decode_photo(data, path)[0])


def _in_8_bits(data: bytes, header: Header, path: Path) -> np.ndarray:
    """Decode a png of 16 bits per value as RGB of 8, if the two bytes of each value are equal."""
    refuse_large((header.height, header.width), f"mask {path}")
    colours = cv2.imdecode(np.frombuffer(data, np.uint8), AS_STORED)
    if colours is None:
        raise SampleError(undecodable("mask", path))
    high, low = np.divmod(colours, 256)
    if (high != low).any():
        raise SampleError(too_deep(path, header.depth))
    return high.astype(np.uint8)


def _indices(data: bytes, header: Header, path: Path) -> np.ndarray:
    """Decode palette indices, or grey values of 1, 2 or 4 bits as they are stored."""
    try:  # OpenCV would return the colours of the palette
        labels = np.array(PngImageFile(io.BytesIO(data)), np.uint8)
    except (OSError, SyntaxError, ValueError):
        raise SampleError(undecodable("mask", path)) from None
    if data[25] == GREY and header.depth in (2, 4):
        labels //= 255 // (2**header.depth - 1)  # Pillow stretches them to 0..255
    return labels


def _grey_channel(pixels: np.ndarray, kind: int, path: Path) -> np.ndarray:
    """Return the only channel of a grey and opaque image.

    Raises:
        SampleError: it has colours or transparent pixels.
    """
    grey, opaque = pixels[..., 0], np.iinfo(pixels.dtype).max
    is_grey = all(np.array_equal(grey, pixels[..., i]) for i in (1, 2))
    if is_grey and (pixels.shape[2] == 3 or (pixels[..., 3] == opaque).all()):
        return np.ascontiguousarray(grey)
    what = "transparent pixels" if is_grey else "colours"
    raise SampleError(
        f"mask {path} is {_COLOUR_TYPES[kind]} png with {what}; save it as 8-bit grey png with the "
        "labels as values"
    )


def mask_header(path: Path) -> Header | None:
    """Read the header of a mask without decoding it; None if it is no image file.

    Raises:
        SampleError: the file is truncated or no png.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    head = read_head(path)
    refuse_lossy(head, path)
    header = read_header(head)
    if header is not None:
        refuse_large((header.height, header.width), f"mask {path}")
    return header


def require_8_bits(path: Path) -> None:
    """Raise a `SampleError` unless a mask stores one value of 8 bits per pixel, as servers want."""
    header = mask_header(path)
    if header is None or (header.depth, header.channels) == (8, 1):
        return
    kind = {2: "a grey+alpha", 3: "an RGB", 4: "an RGBA"}.get(header.channels)
    raise SampleError(
        f"mask {path} is {kind or f'a {header.depth}-bit'} png; save it as 8-bit grey png with the "
        "labels as values"
    )


def refuse_lossy(data: bytes, path: Path) -> None:
    """Raise a `SampleError` if a mask is not a png.

    Args:
        data: the file or its first bytes.
        path: of the mask.
    """
    if not data.startswith(PNG):
        raise SampleError(not_png(path))


def not_png(path: Path) -> str:
    """Return the message about a mask of another format."""
    return (
        f"mask {path} is not a png; save label maps as 8-bit grey png, because lossy formats "
        "change the labels"
    )


def check_sizes(image: LazyArray, mask: LazyArray, image_path: Path, mask_path: Path) -> None:
    """Raise a `SampleError` if image and mask differ in size."""
    if image.shape[:2] != mask.shape:
        h, w, mask_h, mask_w = *image.shape[:2], *mask.shape
        raise SampleError(
            f"image {image_path} is {w}x{h} but mask {mask_path} is {mask_w}x{mask_h}; "
            "export both at the same size, because labels are never resized"
        )
