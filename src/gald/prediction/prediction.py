"""What a network makes of one picture, ready to look at and to count."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gald.painting import Palette, colour_table


@dataclass(frozen=True, eq=False)
class Prediction:
    """One parsed picture.

    Attributes:
        image: (H, W, 3) uint8, the picture as the network saw it.
        labels: (H, W) uint8, an index into `class_names` for every pixel; 255, void, where the
            network's scores are not numbers.
        confidence: (H, W) float32 in [0, 1], probability of that class; None unless asked for.
        ld_map: (H, W) float32, see `gald.inference.ld_map.ld_map`; None unless asked for, and where
            the network has no local distribution.
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
        """The labels as a picture of mode P, whose indices they are, in the classes' colours."""
        picture = Image.fromarray(self.labels)
        picture.putpalette(colour_table(self.palette).tobytes())
        return picture

    def overlay(self, alpha: float = 0.6) -> Image.Image:
        """The picture tinted with the classes' colours, from 0 (none) to 1 (nothing else)."""
        colours = self.palette_image().convert("RGB")
        return Image.blend(Image.fromarray(self.image), colours, alpha)

    def shares(self) -> dict[str, float]:
        """Share of the picture's pixels of every class; they add up to 1 where none is void."""
        counts = np.bincount(self.labels.ravel(), minlength=256)[: len(self.class_names)]
        return dict(zip(self.class_names, (counts / self.labels.size).tolist(), strict=True))
