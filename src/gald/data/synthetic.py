"""Synthetic streets, drawn on the fly: data for the demo, the tests and quick ablations."""

import hashlib
import inspect
from collections.abc import Sequence
from typing import Annotated, ClassVar, Unpack

import numpy as np

from gald.data import street_painter
from gald.data.datamodule import Loading, SegmentationDataModule
from gald.data.dataset import IDENTITY_LUT, BaseDataset, RawSample
from gald.options.ranges import Count, Length, Range, Seed
from gald.run.limits import refuse_pixels

_SCENE = 3  # separates this random stream from others with the same seed


class SyntheticStreets(BaseDataset):
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
    licence = "none to observe, the images are drawn by code"
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
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self,
        split: str = "train",
        count: int = 256,
        size: Annotated[Sequence[Annotated[int, Range(least=32)]], Length(2, 2)] = (96, 128),
        seed: int = 0,
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"split ({split}) is unknown; choose one of {', '.join(self.splits)}")
        if len(size) != 2 or min(size) < 32:
            raise ValueError(
                f"size ({list(size)}) must be a height and a width of at least 32; smaller scenes "
                "have no poles and signs"
            )
        if count < 1:
            raise ValueError(f"count ({count}) must be at least 1; set it to the number of scenes")
        self.split = split
        self.count = count
        refuse_pixels(size[0], size[1], "size", "choose a smaller data.size")
        self.size = (size[0], size[1])
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def image_name(self, index: int) -> str:
        """Return split and index."""
        return f"{self.split}_{index:04d}"

    def pixels(self, index: int) -> RawSample:
        """Draw one scene; its labels are train ids."""
        if not 0 <= index < self.count:
            raise IndexError(f"index ({index}) must be from 0 to {self.count - 1}")
        key = (_SCENE, self.seed, self.splits.index(self.split), index)
        image, mask = street_painter.StreetPainter(self.size, np.random.default_rng(key)).paint()
        return RawSample(image, mask, IDENTITY_LUT)

    def fingerprint(self) -> str:
        """Hash of the painter's code and of all arguments that determine a scene."""
        parts = (inspect.getsource(street_painter), self.split, self.count, self.size, self.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class SyntheticDataModule(SegmentationDataModule):
    """Data module of synthetic streets: three disjoint sets of scenes from one seed.

    `scene_seed` is separate from `seed`, so that runs with different seeds use the same data.

    Args:
        size: height and width of the scenes.
        train_count: number of training scenes.
        val_count: number of validation scenes.
        test_count: number of test scenes.
        scene_seed: seed of the scenes.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = SyntheticStreets

    def __init__(
        self,
        size: Annotated[Sequence[Annotated[int, Range(least=32)]], Length(2, 2)] = (96, 128),
        train_count: Count = 256,
        val_count: Count = 64,
        test_count: Count = 64,
        scene_seed: Seed = 0,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.size = size
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.scene_seed = scene_seed

    def make_dataset(self, split: str) -> SyntheticStreets:
        """Draw one split."""
        # the dataset raises the error about an unknown split
        return SyntheticStreets(split, self.counts.get(split, 1), self.size, self.scene_seed)
