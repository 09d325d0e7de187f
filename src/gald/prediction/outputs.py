"""File formats of a prediction: label maps, overlays, confidence and LD maps."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from gald.painting import viridis
from gald.prediction.prediction import Prediction
from gald.run.checksum import seal


class Output(NamedTuple):
    """One kind of output file, and the folder for it.

    Attributes:
        folder: `masks`, `overlay`, `confidence` or `ld_map`.
        form: for masks `ids` (a grey png of train ids) or `palette` (the same in the classes'
            colours); for confidence `png16` (0..65535 for 0..1) or `npz` (float32); for LD maps
            `png` (viridis, from the lowest to the highest value of the image) or `npz` (float32).
    """

    folder: str
    form: str = "png"

    @property
    def suffix(self) -> str:
        """Return the suffix of these files."""
        return ".npz" if self.form == "npz" else ".png"

    def encode(self, prediction: Prediction) -> bytes:
        """Encode a prediction as the content of the file."""
        if self.folder == "masks" and self.form == "ids":
            return _png(prediction.labels)
        if self.folder in ("masks", "overlay"):
            file = io.BytesIO()
            image: Image.Image = (
                prediction.palette_image() if self.folder == "masks" else prediction.overlay()
            )
            image.save(file, "png")
            return file.getvalue()
        values: np.ndarray = getattr(prediction, self.folder)
        if self.form == "npz":
            file = io.BytesIO()
            np.savez_compressed(file, allow_pickle=False, **{self.folder: values})
            seal(file)
            return file.getvalue()
        if self.form == "png16":
            return _png((values * 65535).round().astype(np.uint16))
        return _png(viridis(values)[..., ::-1])


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
