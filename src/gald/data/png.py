"""Decodes no more rows of a png than a crop needs."""

import zlib
from typing import Any

import numpy as np

try:
    import pyspng
except ImportError:  # no wheel for this machine
    pyspng = None

_GREY, _RGB = 0, 2
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class PngRows:
    """An 8-bit grey or RGB png that is cut like an array: `png[top:bottom, left:right]`.

    A png can only be decoded from its top, but decoding may end with the last row that is wanted:
    the decoder is shown a header that gives the image this height. `np.asarray` decodes it all.

    Args:
        data: the whole file; one for which `suits` is true.
        error: what to raise where it cannot be decoded.

    Attributes:
        shape: (H, W) or (H, W, 3), as the header says.
    """

    def __init__(self, data: bytes, error: Exception) -> None:
        self.data = data
        self.error = error
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        self.shape = (height, width, 3) if data[25] == _RGB else (height, width)
        if not _intact(data):
            raise error

    @staticmethod
    def suits(data: bytes) -> bool:
        """Whether this kind of file can be read row by row here."""
        grey_or_rgb = data[24:26] in (bytes([8, _GREY]), bytes([8, _RGB]))
        interlaced = data[28:29] != b"\0"
        is_png = data.startswith(_SIGNATURE)
        return pyspng is not None and is_png and grey_or_rgb and not interlaced

    def __getitem__(self, cut: tuple[slice, slice]) -> np.ndarray:
        rows, columns = cut
        last = len(range(self.shape[0])[: rows.stop])
        header = self.data[12:20] + last.to_bytes(4, "big") + self.data[24:29]
        checksum = zlib.crc32(header).to_bytes(4, "big")
        rest = memoryview(self.data)[33:]  # no copy of megabytes
        return self._load(b"".join((self.data[:12], header, checksum, rest)))[rows, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ANN401
        return np.asarray(self._load(self.data), dtype)

    def _load(self, data: bytes) -> np.ndarray:
        assert pyspng is not None
        try:
            return pyspng.load(data).reshape(-1, *self.shape[1:])
        except RuntimeError:
            raise self.error from None


def _intact(data: bytes) -> bool:
    """Whether every chunk of pixels has its checksum, which the decoder does not look at."""
    view, at = memoryview(data), len(_SIGNATURE)
    while at < len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        kind = view[at + 4 : at + 8]
        if kind == b"IDAT" and zlib.crc32(view[at + 4 : end]) != int.from_bytes(
            view[end : end + 4], "big"
        ):
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False


Cuttable = np.ndarray | PngRows
