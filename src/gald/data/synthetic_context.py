"""Synthetic scenes that need global context and keep thin detail: the ground truth of an ablation.

Here it is known where global aggregation (GA) must help and what local distribution (LD) can give
back, so that an ablation of the two can be tested itself.
"""

import hashlib
import inspect
import sys
from collections.abc import Sequence
from typing import Annotated, ClassVar, Unpack

import cv2
import numpy as np

from gald.data.datamodule import Loading, SegmentationDataModule
from gald.data.dataset import IDENTITY_LUT, BaseDataset, RawSample
from gald.options.ranges import Count, Length, Range, Seed
from gald.run.limits import refuse_pixels

_SCENE = 7  # separates this random stream from others with the same seed
_CUE = 6  # side of the cue in pixels
_FAR = 6  # pixels between the cue and all lines and blobs
_LEAST_SHARE = 0.03  # of the pixels that are line or blob
_LEAST = 24  # smallest side: half of it is near the cue
_KINDS = ((240, 30, 30), (40, 60, 250))  # colours of the cue: red, blue
_INK = (225, 215, 195)  # colour of all lines and blobs, of any kind
_GROUND = (95, 95, 95)
_NOISE = 12  # standard deviation of every pixel

Scene = Annotated[Sequence[Annotated[int, Range(least=_LEAST)]], Length(2, 2)]


class SyntheticContext(BaseDataset):
    """Lines of one pixel and blobs of one colour; a far cue decides their classes.

    A square in one corner, the cue, is red or blue, and so is the class of all lines and blobs of
    the scene: `red line`, `red blob`, and so on. Both kinds look the same, and at least six pixels
    lie between the cue and every line and blob. So

    - a network in which an output sees at most six pixels around finds the lines, but cannot know
      their class;
    - a global aggregation without a path for the local feature knows the class, but blurs the lines
      away;
    - whatever gives the local feature back after the aggregation gives the lines back, also without
      a notion of place.

    A scene is a function of (seed, split, index, size). Everything is drawn by code, so there is no
    licence to observe.

    Args:
        split: `train`, `val` or `test`.
        count: number of scenes.
        size: height and width.
        seed: seed of all scenes.
    """

    title = "synthetic context"
    licence = "none to observe, the images are drawn by code"
    class_names: ClassVar[tuple[str, ...]] = (
        "ground",
        "red line",
        "blue line",
        "red blob",
        "blue blob",
    )
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (60, 60, 60),
        (255, 90, 90),
        (100, 120, 255),
        (170, 20, 20),
        (30, 40, 170),
    )
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self, split: str = "train", count: int = 320, size: Scene = (24, 24), seed: int = 0
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"split ({split}) is unknown; choose one of {', '.join(self.splits)}")
        if len(size) != 2 or min(size) < _LEAST:
            raise ValueError(
                f"size ({list(size)}) must be a height and a width of at least {_LEAST}; smaller "
                "scenes have no place far from the cue"
            )
        if count < 1:
            raise ValueError(f"count ({count}) must be at least 1; set it to the number of scenes")
        refuse_pixels(size[0], size[1], "size", "choose a smaller data.size")
        self.split = split
        self.count = count
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
        return RawSample(*_draw(self.size, np.random.default_rng(key)), IDENTITY_LUT)

    def fingerprint(self) -> str:
        """Hash of the code that draws, and of all arguments that determine a scene."""
        code = inspect.getsource(sys.modules[__name__])
        parts = (code, self.split, self.count, self.size, self.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _draw(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw image (H, W, 3) and mask (H, W), both uint8."""
    kind = int(rng.integers(len(_KINDS)))
    mask = _shapes(size, kind, rng)
    while (mask > 0).mean() < _LEAST_SHARE:  # all of it was near the cue
        mask = _shapes(size, kind, rng)
    image = np.full((*size, 3), _GROUND, np.float32)
    image[mask > 0] = _INK
    image[:_CUE, :_CUE] = _KINDS[kind]
    image += rng.normal(0, _NOISE, image.shape)
    turn = (slice(None, None, rng.choice((-1, 1))), slice(None, None, rng.choice((-1, 1))))
    image = np.clip(image[turn], 0, 255).astype(np.uint8)  # to one of the four corners
    return np.ascontiguousarray(image), np.ascontiguousarray(mask[turn])


def _shapes(size: tuple[int, int], kind: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blobs, and lines over them, with a cue in the first corner; (H, W) uint8."""
    height, width = size
    mask, cells = np.zeros(size, np.uint8), height * width // 100
    for _ in range(rng.integers(1, 2 + cells // 4)):
        centre = rng.integers((width, height))
        cv2.circle(mask, _point(centre), int(rng.integers(2, 4)), 1 + len(_KINDS) + kind, -1)
    for _ in range(rng.integers(2, 3 + cells // 2)):
        ends = rng.integers((width, height), size=(2, 2))
        cv2.line(mask, _point(ends[0]), _point(ends[1]), 1 + kind)
    near = _CUE + _FAR
    mask[:near, :near] = 0
    return mask


def _point(place: np.ndarray) -> tuple[int, int]:
    return int(place[0]), int(place[1])


class SyntheticContextDataModule(SegmentationDataModule):
    """Data module of synthetic context: three disjoint sets of scenes from one seed.

    `scene_seed` is separate from `seed`, so that runs with different seeds use the same data.

    Args:
        size: height and width of the scenes.
        train_count: number of training scenes.
        val_count: number of validation scenes.
        test_count: number of test scenes.
        scene_seed: seed of the scenes.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = SyntheticContext

    def __init__(
        self,
        size: Scene = (24, 24),
        train_count: Count = 320,
        val_count: Count = 128,
        test_count: Count = 128,
        scene_seed: Seed = 0,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        self.size = size
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.scene_seed = scene_seed

    def make_dataset(self, split: str) -> SyntheticContext:
        """Draw one split."""
        # the dataset raises the error about an unknown split
        return SyntheticContext(split, self.counts.get(split, 1), self.size, self.scene_seed)
