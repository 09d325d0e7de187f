"""Base of datasets that are drawn by code: each scene is a function of seed, split, index, size."""

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import ClassVar, Unpack

import numpy as np

from gald.data.datamodule import Loading, SegmentationDataModule
from gald.data.dataset import IDENTITY_LUT, BaseDataset, RawSample
from gald.options.ranges import Count, Seed
from gald.run.limits import refuse_pixels


class Drawn(Loading, total=False):
    """Keyword arguments that data modules of drawn scenes accept; see `DrawnDataModule`."""

    train_count: Count
    val_count: Count
    test_count: Count
    scene_seed: Seed


class DrawnDataset(BaseDataset):
    """Scenes that are drawn by code; a subclass implements `draw` and sets the class attributes.

    Args:
        split: `train`, `val` or `test`.
        count: number of scenes.
        size: height and width.
        seed: seed of all scenes.

    Attributes:
        stream: number that separates its random numbers from others with the same seed.
        code: module that draws.
        least: smallest side.
        why: what smaller scenes lack.
    """

    licence = "none to observe, the images are drawn by code"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    stream: ClassVar[int]
    code: ClassVar[ModuleType]
    least: ClassVar[int]
    why: ClassVar[str]

    def __init__(self, split: str, count: int, size: Sequence[int], seed: int) -> None:
        if split not in self.splits:
            raise ValueError(f"split ({split}) is unknown; choose one of {', '.join(self.splits)}")
        if len(size) != 2 or min(size) < self.least:
            raise ValueError(
                f"size ({list(size)}) must be a height and a width of at least {self.least}; "
                f"smaller scenes have no {self.why}"
            )
        if count < 1:
            raise ValueError(f"count ({count}) must be at least 1; set it to the number of scenes")
        refuse_pixels(size[0], size[1], "size", "choose a smaller data.size")
        self.split = split
        self.count = count
        self.size = (size[0], size[1])
        self.seed = seed

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw image (H, W, 3) and train ids (H, W), both uint8."""

    def __len__(self) -> int:
        return self.count

    def image_name(self, index: int) -> str:
        """Return split and index."""
        return f"{self.split}_{index:04d}"

    def pixels(self, index: int) -> RawSample:
        """Draw one scene; its labels are train ids."""
        if not 0 <= index < self.count:
            raise IndexError(f"index ({index}) must be from 0 to {self.count - 1}")
        key = (self.stream, self.seed, self.splits.index(self.split), index)
        return RawSample(*self.draw(np.random.default_rng(key)), IDENTITY_LUT)

    def fingerprint(self) -> str:
        """Hash of the code that draws, and of all arguments that determine a scene."""
        parts = (inspect.getsource(self.code), self.split, self.count, self.size, self.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class DrawnDataModule(SegmentationDataModule):
    """Base of data modules of drawn scenes: three disjoint sets from one seed.

    A subclass says how small `size` may be. `scene_seed` is separate from `seed`, so that runs with
    different seeds use the same data.

    Args:
        size: height and width of the scenes.
        train_count: number of training scenes.
        val_count: number of validation scenes.
        test_count: number of test scenes.
        scene_seed: seed of the scenes.
        loading: see `SegmentationDataModule`.
    """

    def __init__(
        self,
        size: Sequence[int],
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

    def scenes(self, split: str) -> tuple[str, int, Sequence[int], int]:
        """Return the arguments of the dataset of a split; it refuses an unknown one itself."""
        return split, self.counts.get(split, 1), self.size, self.scene_seed
