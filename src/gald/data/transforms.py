"""Joint random transforms of image and mask, keyed by what is drawn and not by who draws it.

albumentations does the work behind one callable, so that another library could replace it. Two of
its habits are corrected here: workers share one random stream and forget it between epochs (so the
state is set before each call), and masks are padded with class 0 (so every fill is void).
"""

import os
import random
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network

import albumentations as A
import cv2
import numpy as np
from albumentations.core.type_definitions import Targets

from gald.data.files import VOID

_AUGMENTATION = 2  # keeps this random stream apart from the others that start at the same seed


class ScaledCrop(A.DualTransform):
    """Random scale and random crop, as one resize of the source window that becomes the crop.

    A scale s is drawn and a window of round(crop / s) whole pixels is cut at random, void where it
    leaves the image, then resized to the crop. The distribution is that of scaling the whole image
    and cropping it, up to the rounding of the window, for a fraction of the pixels.

    Args:
        crop_size: height and width of the result.
        scale: smallest and largest scale, drawn uniformly.
        fill: RGB value outside of the image.
        fill_mask: mask value outside of the image.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self,
        crop_size: tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        fill: tuple[int, int, int] = (0, 0, 0),
        fill_mask: int = VOID,
    ) -> None:
        super().__init__(p=1.0)
        self.crop_size = crop_size
        self.scale = scale
        self.fill = fill
        self.fill_mask = fill_mask

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the window (top, left, height, width), which may reach beyond the image."""
        scale = self.py_random.uniform(*self.scale)
        window = [max(1, round(side / scale)) for side in self.crop_size]
        # A window larger than the image holds all of it, at a random place.
        corner = [
            self.py_random.randint(min(0, size - side), max(0, size - side))
            for size, side in zip(params["shape"][:2], window, strict=True)
        ]
        return {"window": (*corner, *window)}

    def apply(
        self,
        img: np.ndarray,
        window: tuple[int, int, int, int],
        **params: Any,  # noqa: ANN401
    ) -> np.ndarray:
        """Cut and resize the image; shrinking averages, so that thin things do not alias."""
        shrinks = window[2] > self.crop_size[0]
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return self._cut(img, window, self.fill, mode)

    def apply_to_mask(
        self,
        mask: np.ndarray,
        window: tuple[int, int, int, int],
        **params: Any,  # noqa: ANN401
    ) -> np.ndarray:
        """Cut and resize the mask without making new labels."""
        # the exact variant samples at pixel centres, as the image's interpolation does
        return self._cut(mask, window, self.fill_mask, cv2.INTER_NEAREST_EXACT)

    def _cut(
        self,
        array: np.ndarray,
        window: tuple[int, int, int, int],
        fill: float | tuple[float, ...] | None,
        mode: int,
    ) -> np.ndarray:
        top, left, height, width = window
        rows, columns = array.shape[:2]
        inside = array[max(0, top) : top + height, max(0, left) : left + width]
        above, before = max(0, -top), max(0, -left)
        below, after = max(0, top + height - rows), max(0, left + width - columns)
        if above or before or below or after:
            inside = cv2.copyMakeBorder(  # ty: ignore[no-matching-overload]
                inside, above, below, before, after, cv2.BORDER_CONSTANT, value=fill
            )
        return cv2.resize(inside, self.crop_size[::-1], interpolation=mode)


class TrainTransform:
    """Random scale, crop with void padding, horizontal flip and colour jitter.

    Calling it with the same key gives the same crop in any worker, process or resumed run.

    Args:
        crop_size: height and width of the crop.
        scale: smallest and largest random scale.
        flip: probability of a horizontal flip.
        color_jitter: largest relative change of brightness, contrast and saturation; 0 is none.
        hue: largest change of hue, as a part of the colour circle; 0 is none.

    Shape:
        image: (H, W, 3) uint8 -> (h, w, 3) uint8
        mask: (H, W) uint8 -> (h, w) uint8
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        scale: Sequence[float] = (0.5, 2.0),
        flip: float = 0.5,
        color_jitter: float = 0.3,
        hue: float = 0.05,
    ) -> None:
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(
                f"crop_size ({list(crop_size)}) must be a height and a width; write crop_size=[h,w]"
            )
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"scale ({list(scale)}) must be a smallest and a largest factor above 0; "
                "write scale=[0.5,2.0]"
            )
        height, width = crop_size
        smallest, largest = scale
        steps: list[A.BasicTransform | A.BaseCompose] = [
            ScaledCrop((height, width), (smallest, largest)),
            A.HorizontalFlip(p=flip),
        ]
        if color_jitter or hue:
            around = (max(0.0, 1 - color_jitter), 1 + color_jitter)
            steps.append(A.ColorJitter(around, around, around, (-hue, hue), p=1.0))
        self.compose = A.Compose(steps)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, key: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform one pair; key is (seed, epoch, index of the sample)."""
        rng = np.random.default_rng((_AUGMENTATION, *key))
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        out = self.compose(image=image, mask=mask)
        return out["image"], out["mask"]
