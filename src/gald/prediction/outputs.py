"""What is written of a parsed picture: label maps, overlays, confidence and LD maps as files."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from gald.prediction.prediction import Parsed


class Product(NamedTuple):
    """One kind of file, and the folder that such files are put in.

    Attributes:
        folder: `masks`, `overlay`, `confidence` or `ld_map`.
        form: of masks `ids` (a grey png of train ids) or `palette` (the same in the classes'
            colours); of confidence `png16` (0..65535 for 0..1) or `npz` (float32); of LD maps `png`
            (from the picture's lowest value to its highest, in viridis) or `npz` (float32).
    """

    folder: str
    form: str = "png"

    @property
    def suffix(self) -> str:
        """Of such files."""
        return ".npz" if self.form == "npz" else ".png"

    def encode(self, parsed: Parsed) -> bytes:
        """The file's content."""
        if self.folder == "masks" and self.form == "ids":
            return _png(parsed.labels)
        if self.folder in ("masks", "overlay"):
            file = io.BytesIO()
            picture: Image.Image = (
                parsed.palette_image() if self.folder == "masks" else parsed.overlay()
            )
            picture.save(file, "png")
            return file.getvalue()
        numbers: np.ndarray = getattr(parsed, self.folder)
        if self.form == "npz":
            file = io.BytesIO()
            np.savez_compressed(file, allow_pickle=False, **{self.folder: numbers})
            return file.getvalue()
        if self.form == "png16":
            return _png((numbers * 65535).round().astype(np.uint16))
        low, high = numbers.min(), numbers.max()
        grey = ((numbers - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)
        return _png(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS))


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
