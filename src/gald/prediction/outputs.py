"""What is written of a parsed picture: label maps, overlays, confidence and LD maps as files."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from gald.painting import viridis
from gald.prediction.prediction import Prediction


class Output(NamedTuple):
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

    def encode(self, prediction: Prediction) -> bytes:
        """The file's content."""
        if self.folder == "masks" and self.form == "ids":
            return _png(prediction.labels)
        if self.folder in ("masks", "overlay"):
            file = io.BytesIO()
            picture: Image.Image = (
                prediction.palette_image() if self.folder == "masks" else prediction.overlay()
            )
            picture.save(file, "png")
            return file.getvalue()
        numbers: np.ndarray = getattr(prediction, self.folder)
        if self.form == "npz":
            file = io.BytesIO()
            np.savez_compressed(file, allow_pickle=False, **{self.folder: numbers})
            return file.getvalue()
        if self.form == "png16":
            return _png((numbers * 65535).round().astype(np.uint16))
        return _png(viridis(numbers)[..., ::-1])


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
