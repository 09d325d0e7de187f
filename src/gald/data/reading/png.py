"""Png decoding that stops at the last row of a crop."""

import threading
import zlib
from typing import Any

import numpy as np

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # then `PngRows` suits no file, and OpenCV decodes the whole image
    decode_image_png_u8 = None

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3  # colour types
_GREY, _RGB = bytes([8, GREY]), bytes([8, RGB])  # bit depth and colour type


class PngRows:
    """8-bit grey or RGB png that is sliced like an array: `png[top:bottom, left:right]`.

    A png can only be decoded from the top, but decoding can stop after the last needed row: the
    decoder gets a header with a smaller image height. It still verifies the checksums of the whole
    file. `np.asarray` decodes the whole image.

    Args:
        data: bytes of the whole file, for which `suits` is true.
        error: raised if the file cannot be decoded.

    Attributes:
        shape: (H, W) or (H, W, 3), from the header.
    """

    def __init__(self, data: bytes, error: Exception) -> None:
        self.data = data
        self.error = error
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        self.shape = (height, width, 3) if data[24:26] == _RGB else (height, width)

    @staticmethod
    def suits(data: bytes) -> bool:
        """Return whether a file is of this kind: an 8-bit grey or RGB png, not interlaced.

        Without the package kornia-rs, of the extra `data`, no file is.
        """
        if decode_image_png_u8 is None:
            return False
        interlaced = data[28:29] != b"\0"
        return data.startswith(_SIGNATURE) and data[24:26] in (_GREY, _RGB) and not interlaced

    def __getitem__(self, cut: tuple[slice, slice]) -> np.ndarray:
        rows, columns = cut
        height = len(range(self.shape[0])[: rows.stop])
        header = self.data[12:20] + height.to_bytes(4, "big") + self.data[24:29]
        checksum = zlib.crc32(header).to_bytes(4, "big")
        rest = memoryview(self.data)[33:]  # avoids a copy
        image = self._decode(b"".join((self.data[:12], header, checksum, rest)), height)
        return image[rows, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._decode(self.data, self.shape[0]), dtype)

    def _decode(self, data: bytes, height: int) -> np.ndarray:
        size, mode = (height, self.shape[1]), "rgb" if len(self.shape) == 3 else "mono"
        assert decode_image_png_u8 is not None  # otherwise no file suits
        try:
            image = decode_image_png_u8(data, size, mode)
        except Exception:  # kornia has no exception of its own
            raise self.error from None
        return image.reshape(height, *self.shape[1:])


LazyArray = np.ndarray | PngRows


def by_rows(data: bytes) -> bool:
    """Return whether `PngRows` is the fastest decoder of a file."""
    # It holds the interpreter's lock, so among several threads OpenCV is faster.
    single_threaded = threading.current_thread() is threading.main_thread()
    return single_threaded and PngRows.suits(data)
