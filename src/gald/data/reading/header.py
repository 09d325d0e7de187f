"""Headers of png and jpg: size, depth and orientation of an image without decoding it."""

import io
import re
import warnings
from typing import NamedTuple

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
UPRIGHT = 1  # EXIF orientation of pixels that are stored as they are seen
_ORIENTATION_TAG = 0x0112
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # markers between those of the frames that are none
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of a png


class Header(NamedTuple):
    """Properties of a png or jpg.

    Attributes:
        kind: `png` or `jpg`.
        height: in stored order.
        width: in stored order.
        depth: bits per value.
        channels: 1 for a palette.
        orientation: 1 to 8 as EXIF counts them; 1 if the image has none.
    """

    kind: str
    height: int
    width: int
    depth: int
    channels: int
    orientation: int


def read_header(data: bytes) -> Header | None:
    """Read the header at the start of a file; None for other formats and if it is incomplete.

    Args:
        data: the file or its first bytes. An orientation after them is not seen.
    """
    if data.startswith(PNG):
        return _png(data)
    return _jpeg(data) if data.startswith(JPEG) else None


def read_size(data: bytes) -> tuple[int, int] | None:
    """Read height and width of an image of any format; None if no header is found.

    Args:
        data: the whole file. It is not decoded.
    """
    header = read_header(data)
    if header is not None:
        return header.height, header.width
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(data)).size
    except Image.DecompressionBombError as error:  # from a bound of its own
        pixels = re.search(r"\d+", str(error))
        return (1, int(pixels[0])) if pixels else None
    except Exception:  # Pillow has no exception of its own for a damaged header
        return None
    return height, width


def read_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a png, jpg or webp, 1 to 8; 1 if it has none."""
    if data.startswith((PNG, JPEG)):
        header = read_header(data)
        return UPRIGHT if header is None else header.orientation
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _chunk(data, b"EXIF", size_first=False)
    return UPRIGHT  # a TIFF is turned by its decoder, other formats have no orientation


def _png(data: bytes) -> Header | None:
    if len(data) < 33 or data[12:16] != b"IHDR" or data[25] not in _CHANNELS:
        return None
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    orientation = _chunk(data, b"eXIf", size_first=True)
    return Header("png", height, width, data[24], _CHANNELS[data[25]], orientation)


def _jpeg(data: bytes) -> Header | None:
    """Walk from segment to segment up to the pixels."""
    frame, orientation = None, UPRIGHT
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _START_OF_SCAN:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and len(body) >= 6:
            height, width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
            frame = height, width, body[0], body[5]
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            orientation = _of_exif(body)
        at = end
    return None if frame is None else Header("jpg", *frame, orientation)


def _chunk(data: bytes, name: bytes, size_first: bool) -> int:
    """Return the orientation in a chunk of a png (size, name) or webp (name, size)."""
    at = data.find(name)
    if at < 4:
        return UPRIGHT
    if size_first:
        size = int.from_bytes(data[at - 4 : at], "big")
        return _of_exif(data[at + 4 : at + 4 + size])
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    return _of_exif(data[at + 8 : at + 8 + size])


def _of_exif(block: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(block)
        orientation = exif.get(_ORIENTATION_TAG, UPRIGHT)
    except Exception:  # Pillow has no exception of its own for a damaged block
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT
