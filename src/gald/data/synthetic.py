"""Synthetic streets, drawn on the fly: data for the demo, the tests and quick ablations."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Unpack

import numpy as np
from typing_extensions import override

from gald.data import street_painter
from gald.data.drawn import Drawn, DrawnDataModule, DrawnDataset
from gald.options.ranges import Length, Range

_LEAST = 32  # smallest side: smaller scenes have no poles and signs


class SyntheticStreets(DrawnDataset):
    """Streets in one-point perspective; a scene is a function of (seed, split, index, size).

    The scenes have large regions, poles two or three pixels wide, small signs and persons,
    vehicles, varying light, texture and noise. The bonnet at the bottom of most scenes is void.

    Some classes look the same locally, and only context separates them:

    - the strip beyond the pavement is vegetation under a clear sky and water under an overcast sky,
      in the same colours and texture: the cue is at the other end of the image;
    - road and pavement are asphalt in the same range of greys; they differ by their position
      between kerbs and walls;
    - the side of a bus has the walls and windows of a house, and posters on houses have the colours
      and shape of signs.

    Everything is drawn by code, so there is no licence to observe.

    Args:
        split: `train`, `val` or `test`.
        count: number of scenes.
        size: height and width.
        seed: seed of all scenes.
    """

    title = "synthetic streets"
    class_names: ClassVar[tuple[str, ...]] = (
        "sky",
        "building",
        "road",
        "pavement",
        "vegetation",
        "water",
        "pole",
        "sign",
        "person",
        "vehicle",
    )
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (120, 180, 225),
        (110, 90, 85),
        (95, 85, 110),
        (225, 150, 205),
        (95, 150, 60),
        (30, 95, 165),
        (205, 205, 205),
        (240, 205, 40),
        (220, 50, 60),
        (50, 50, 160),
    )
    stream = 3
    code = street_painter
    least = _LEAST
    why = "poles and signs"

    def __init__(
        self,
        split: str = "train",
        count: int = 256,
        size: Sequence[int] = (96, 128),
        seed: int = 0,
    ) -> None:
        super().__init__(split, count, size, seed)

    @override
    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return street_painter.StreetPainter(self.size, rng).paint()


class SyntheticDataModule(DrawnDataModule):
    """Data module of synthetic streets; see `DrawnDataModule` for the arguments."""

    dataset_class = SyntheticStreets

    def __init__(
        self,
        size: Annotated[Sequence[Annotated[int, Range(least=_LEAST)]], Length(2, 2)] = (96, 128),
        **drawn: Unpack[Drawn],
    ) -> None:
        super().__init__(size, **drawn)

    @override
    def make_dataset(self, split: str) -> SyntheticStreets:
        return SyntheticStreets(*self.scenes(split))
