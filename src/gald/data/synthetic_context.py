"""Synthetic scenes that need global context and keep thin detail: the ground truth of an ablation.

Here it is known where global aggregation (GA) must help and what local distribution (LD) can give
back, so that an ablation of the two can be tested itself.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, ClassVar, Unpack

import cv2
import numpy as np
from typing_extensions import override

from gald.data.drawn import Drawn, DrawnDataModule, DrawnDataset
from gald.options.ranges import Length, Range

_CUE = 6  # side of the cue in pixels
_FAR = 6  # pixels between the cue and all lines and blobs
_LEAST_SHARE = 0.03  # of the pixels that are line or blob
_LEAST = 24  # smallest side: half of it is near the cue
_KINDS = ((240, 30, 30), (40, 60, 250))  # colours of the cue: red, blue
_OPPOSITE = np.array([0, 2, 1, 4, 3], np.uint8)  # class of the other kind
_INK = (225, 215, 195)  # colour of all lines and blobs, of any kind
_GROUND = (95, 95, 95)
_DARK = (20, 20, 30)  # colour of the lines and blobs for which the cue means the opposite
_NOISE = 12  # standard deviation of every pixel


class SyntheticContext(DrawnDataset):
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

    With `place`, half of the lines and blobs are dark, and for these the cue means the opposite: a
    dark line is a `blue line` if the cue is red. Then the local feature decides at each place how
    the global one is to be taken, which no fixed mix of the two can do.

    A scene is a function of (seed, split, index, size, place). Everything is drawn by code, so
    there is no licence to observe.

    Args:
        split: `train`, `val` or `test`.
        count: number of scenes.
        size: height and width.
        seed: seed of all scenes.
        place: whether some lines and blobs are dark and invert the cue.
    """

    title = "synthetic context"
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
    stream = 7
    code = sys.modules[__name__]
    least = _LEAST
    why = "place far from the cue"

    def __init__(
        self,
        split: str = "train",
        count: int = 320,
        size: Sequence[int] = (24, 24),
        seed: int = 0,
        place: bool = False,
    ) -> None:
        super().__init__(split, count, size, seed)
        self.place = place

    @override
    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return _draw(self.size, self.place, rng)

    @override
    def fingerprint(self) -> str:
        return super().fingerprint() + ("-place" if self.place else "")


def _draw(
    size: tuple[int, int], place: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw image (H, W, 3) and mask (H, W), both uint8."""
    kind = int(rng.integers(len(_KINDS)))
    mask, dark = _shapes(size, kind, place, rng)
    while (mask > 0).mean() < _LEAST_SHARE:  # all of it was near the cue
        mask, dark = _shapes(size, kind, place, rng)
    image = np.full((*size, 3), _GROUND, np.float32)
    image[mask > 0] = _INK
    image[dark] = _DARK
    mask[dark] = _OPPOSITE[mask[dark]]
    image[:_CUE, :_CUE] = _KINDS[kind]
    image += rng.normal(0, _NOISE, image.shape)
    turn = (slice(None, None, rng.choice((-1, 1))), slice(None, None, rng.choice((-1, 1))))
    image = np.clip(image[turn], 0, 255).astype(np.uint8)  # to one of the four corners
    return np.ascontiguousarray(image), np.ascontiguousarray(mask[turn])


def _shapes(
    size: tuple[int, int], kind: int, place: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw blobs, and lines over them, with a cue in the first corner.

    Returns:
        mask (H, W) uint8, and which of it is dark (H, W) bool: with `place`, half of the shapes.
    """
    height, width = size
    drawn, cells = np.zeros((*size, 2), np.uint8), height * width // 100
    for _ in range(rng.integers(1, 2 + cells // 4)):
        colour = (1 + len(_KINDS) + kind, int(place and rng.integers(2)))
        centre = rng.integers((width, height))
        cv2.circle(drawn, _point(centre), int(rng.integers(2, 4)), colour, -1)
    for _ in range(rng.integers(2, 3 + cells // 2)):
        colour = (1 + kind, int(place and rng.integers(2)))
        ends = rng.integers((width, height), size=(2, 2))
        cv2.line(drawn, _point(ends[0]), _point(ends[1]), colour)
    near = _CUE + _FAR
    drawn[:near, :near] = 0
    return drawn[..., 0].copy(), drawn[..., 1] > 0


def _point(place: np.ndarray) -> tuple[int, int]:
    return int(place[0]), int(place[1])


class SyntheticContextDataModule(DrawnDataModule):
    """Data module of synthetic context.

    Args:
        size: height and width of the scenes.
        place: see `SyntheticContext`.
        drawn: see `DrawnDataModule`.
    """

    dataset_class = SyntheticContext

    def __init__(
        self,
        size: Annotated[Sequence[Annotated[int, Range(least=_LEAST)]], Length(2, 2)] = (24, 24),
        place: bool = False,
        **drawn: Unpack[Drawn],
    ) -> None:
        super().__init__(size, **drawn)
        self.place = place

    @override
    def make_dataset(self, split: str) -> SyntheticContext:
        return SyntheticContext(*self.scenes(split), self.place)
