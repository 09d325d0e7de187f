"""Prediction for one image: class ids, confidence, LD map, and how to draw them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gald.painting import Palette, colour_table, colourise


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for one image.

    Attributes:
        image: (H, W, 3) uint8, the input of the network.
        labels: (H, W) uint8, an index into `class_names` for every pixel; void (255) where a score
            is NaN.
        confidence: (H, W) float32 in [0, 1], probability of the predicted class; None unless
            requested.
        ld_map: (H, W) float32, see `gald.inference.ld_map.ld_map`; None unless requested, or if the
            network has no local distribution.
        class_names: names of the K classes.
        palette: K colours.
    """

    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray | None
    ld_map: np.ndarray | None
    class_names: tuple[str, ...]
    palette: Palette

    def palette_image(self) -> Image.Image:
        """Return an image of mode P: the labels as indices, the classes' colours as palette."""
        image = Image.fromarray(self.labels)
        image.putpalette(colour_table(self.palette).tobytes())
        return image

    def overlay(self, alpha: float = 0.6) -> Image.Image:
        """Blend the image with the classes' colours; `alpha` is the weight of the colours."""
        colours = Image.fromarray(colourise(self.labels, self.palette))
        return Image.blend(Image.fromarray(self.image), colours, alpha)

    def shares(self) -> dict[str, float]:
        """Return each class's fraction of the pixels; the sum is 1 if no pixel is void."""
        counts = np.bincount(self.labels.ravel(), minlength=256)[: len(self.class_names)]
        return dict(zip(self.class_names, (counts / self.labels.size).tolist(), strict=True))
