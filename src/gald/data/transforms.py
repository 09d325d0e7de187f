"""Joint random transforms of image and mask, seeded by a key per sample."""

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np

from gald.data.labels import VOID
from gald.data.reading.png import LazyArray
from gald.options.ranges import Fraction, Length, Range, Scale, Size
from gald.run.limits import refuse_pixels

_AUGMENTATION = 2  # separates this random stream from others with the same seed
_CROP_TRIES = 10  # largest number of crops drawn for cat_max_ratio, as in mmsegmentation
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Window(NamedTuple):
    """Part of the image that becomes the crop, in pixels; it may extend beyond the image."""

    top: int
    left: int
    height: int
    width: int


class TrainTransform:
    """Random scale, crop with void padding, horizontal flip and colour jitter.

    The window that becomes the crop is cut first and resized once; labels are mapped only inside
    it, and colours change in one pass. The same key gives the same crop in any worker, process or
    resumed run.

    First a scale is drawn, then a window of round(crop / scale) whole pixels at a random position.
    The result equals scaling the whole image by crop / window and cropping there: the labels are
    the same, and so are the pixels if the window is shrunk. If it is enlarged, the outermost ring
    of pixels is interpolated without its neighbours outside of the window.

    Brightness, contrast, saturation and hue are one affine map of RGB, clipped once at the end. Hue
    rotates the colour plane of YIQ instead of HSV, so luminance is preserved.

    Args:
        crop_size: height and width of the crop.
        scale: smallest and largest random scale, drawn uniformly.
        flip: probability of a horizontal flip.
        color_jitter: largest relative change of brightness, contrast and saturation; 0 is none.
        hue: largest change of hue, as a fraction of the colour circle; 0 is none.
        cat_max_ratio: a crop in which one class covers a larger fraction, void not counted, is
            drawn again; at most ten crops are drawn. null accepts every crop.
        extra: albumentations transforms of the crop, in order, as a list or by name; null leaves
            one out. Regions that they fill from outside of the crop become void.

    Shape:
        image: (H, W, 3) uint8 -> (h, w, 3) uint8
        labels: (H, W) uint8, stored -> mask (h, w) uint8, train ids
    """

    def __init__(
        self,
        crop_size: Size,
        scale: Annotated[Sequence[Scale], Length(2, 2)] = (0.5, 2.0),
        flip: Fraction = 0.5,
        color_jitter: Fraction = 0.3,
        hue: Annotated[float, Range(least=0, most=0.5)] = 0.0,
        cat_max_ratio: Annotated[float, Range(above=0, most=1)] | None = None,
        extra: Mapping[str, Any] | Sequence[Any] = (),
    ) -> None:
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(
                f"crop_size ({list(crop_size)}) must be a height and a width; write crop_size=[h,w]"
            )
        refuse_pixels(*crop_size, "crop_size", "choose a smaller data.train_transform.crop_size")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"scale ({list(scale)}) must be a smallest and a largest factor above 0; "
                "write scale=[0.5,2.0]"
            )
        if cat_max_ratio is not None and not 0 < cat_max_ratio <= 1:
            raise ValueError(
                f"cat_max_ratio ({cat_max_ratio}) must be a fraction above 0 and at most 1; "
                "write cat_max_ratio=0.75, or null to accept every crop"
            )
        self.crop_size = (crop_size[0], crop_size[1])
        self.scale = (scale[0], scale[1])
        self.flip = flip
        self.color_jitter = color_jitter
        self.hue = hue
        self.cat_max_ratio = cat_max_ratio
        every = extra.values() if isinstance(extra, Mapping) else extra
        some = [one for one in every if one is not None]
        self.extra = _Albumentations(some) if some else None

    def __call__(
        self,
        image: LazyArray,
        labels: LazyArray,
        key: tuple[int, ...],
        lut: np.ndarray | None = None,
        target_class: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform one sample.

        Args:
            image: pixels; a memory map or a png is read only inside the crop.
            labels: stored labels.
            key: (seed, epoch, ...); numbers that identify this draw.
            lut: stored label -> train id; None if the labels are train ids.
            target_class: train id of a class that the crop must contain; None crops anywhere.
        """
        rng = np.random.default_rng((_AUGMENTATION, *key))
        if target_class is not None or self.cat_max_ratio is not None:
            labels = np.asarray(labels)
        spots = None if target_class is None else _pixels_of(target_class, labels, lut)
        window = self.draw_window(labels.shape, rng, spots)
        mask = cut_labels(labels, window, self.crop_size, lut)
        if self.cat_max_ratio is not None:
            for _ in range(_CROP_TRIES - 1):
                if _largest_share(mask) <= self.cat_max_ratio:
                    break
                window = self.draw_window(labels.shape, rng, spots)
                mask = cut_labels(labels, window, self.crop_size, lut)
        image = cut_image(image, window, self.crop_size)
        if rng.random() < self.flip:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        if self.color_jitter or self.hue:
            image = self._jitter(image, rng)
        if self.extra is not None:
            image, mask = self.extra(image, mask, rng)
        return image, mask

    def draw_window(
        self,
        shape: tuple[int, ...],
        rng: np.random.Generator,
        spots: np.ndarray | None = None,
    ) -> Window:
        """Draw a window in an image of (height, width): anywhere, or around one of `spots`."""
        scale = rng.uniform(*self.scale)
        height, width = (max(1, round(side / scale)) for side in self.crop_size)
        spot = (None, None)
        if spots is not None and len(spots):
            spot = tuple(int(x) for x in spots[rng.integers(len(spots))])
        top = _draw_start(shape[0], height, spot[0], rng)
        left = _draw_start(shape[1], width, spot[1], rng)
        return Window(top, left, height, width)

    def _jitter(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        around = (max(0.0, 1 - self.color_jitter), 1 + self.color_jitter)
        brightness, contrast, saturation = rng.uniform(*around, size=3)
        turn = rng.uniform(-self.hue, self.hue)
        matrix = color_matrix(brightness, contrast, saturation, turn, mean_luma(image))
        return cv2.transform(image, matrix)


def color_matrix(
    brightness: float, contrast: float, saturation: float, turn: float, luma: float
) -> np.ndarray:
    """Build one affine map of RGB: brightness, then contrast, saturation and hue.

    Args:
        brightness: factor of all values.
        contrast: factor of the distance to the mean luminance.
        saturation: factor of the distance to each pixel's luminance.
        turn: rotation of the hue, as a fraction of the circle.
        luma: mean luminance of the image.

    Shape:
        returns: (3, 4)
    """
    cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    rotate = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    hue = np.linalg.inv(_TO_YIQ) @ rotate @ _TO_YIQ if turn else np.eye(3)
    fade = saturation * np.eye(3) + (1 - saturation) * _LUMA  # each row moves towards luminance
    offset = (1 - contrast) * brightness * luma  # grey, which saturation and hue do not change
    return np.column_stack([brightness * contrast * hue @ fade, np.full(3, offset)])


def mean_luma(image: np.ndarray) -> float:
    """Return the mean luminance of an RGB image."""
    return float(np.dot(_LUMA, cv2.mean(image)[:3]))


def cut_image(image: LazyArray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Cut a window out of an image, black outside, and resize it to (height, width).

    Down to half the size, linear interpolation reads every pixel; below, pixels are averaged, so
    that thin structures do not alias.
    """
    mode = cv2.INTER_AREA if window.height > 2 * size[0] else cv2.INTER_LINEAR
    inside, outside = _inside(image, window)
    return cv2.resize(_pad(inside, outside, 0), size[::-1], interpolation=mode)


def cut_labels(
    labels: LazyArray, window: Window, size: tuple[int, int], lut: np.ndarray | None = None
) -> np.ndarray:
    """Cut a window out of a label map, void outside, resize it to (height, width) and map it.

    Nearest neighbour: the result has no label that the window lacks, except void.
    """
    inside, outside = _inside(labels, window)
    if lut is not None and any(outside):
        inside, lut = cv2.LUT(inside, lut), None  # there may be no stored label of void for padding
    inside = _pad(inside, outside, VOID)
    # Pixel centres in integer arithmetic: with OpenCV's nearest neighbour, the sampled pixels would
    # depend on the window's position.
    rows, columns = (
        (2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(size, window[2:], strict=True)
    )
    crop = inside.take(rows, axis=0).take(columns, axis=1)
    return crop if lut is None else cv2.LUT(crop, lut)


def _inside(array: LazyArray, window: Window) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the window's part in the array, and its excess above, below, left and right."""
    top, left, height, width = window
    rows, columns = array.shape[:2]
    part = array[max(0, top) : top + height, max(0, left) : left + width]
    over = (-top, top + height - rows, -left, left + width - columns)
    return part, (max(0, over[0]), max(0, over[1]), max(0, over[2]), max(0, over[3]))


def _pad(array: np.ndarray, outside: tuple[int, int, int, int], value: int) -> np.ndarray:
    if not any(outside):
        return array
    return cv2.copyMakeBorder(array, *outside, cv2.BORDER_CONSTANT, value=[value] * 3)


def _draw_start(size: int, side: int, spot: int | None, rng: np.random.Generator) -> int:
    """Draw the start of a window of `side` on an axis of `size`, so that it contains the spot."""
    # A window larger than the image contains all of it, at a random offset.
    first, last = min(0, size - side), max(0, size - side)
    if spot is not None:
        first, last = max(first, spot - side + 1), min(last, spot)
    return int(rng.integers(first, last + 1))


def _pixels_of(train_id: int, labels: LazyArray, lut: np.ndarray | None) -> np.ndarray:
    wanted = [train_id] if lut is None else np.flatnonzero(lut == train_id)
    return np.argwhere(np.isin(labels, wanted))


def _largest_share(mask: np.ndarray) -> float:
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)[:VOID]
    return counts.max() / max(1, counts.sum())


class _Albumentations:
    """Albumentations transforms as one callable, with two corrections.

    By default, workers share one random stream and restart it every epoch; here the random state is
    set before each call. By default, masks are filled with class 0; here they are filled with void.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        import albumentations as A

        self.compose = A.Compose(list(transforms))
        fill_void(self.compose)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        out = self.compose(image=image, mask=mask)
        return out["image"], out["mask"]


def fill_void(transform: Any) -> None:
    """Make an albumentations transform, and all nested ones, fill masks with void."""
    if getattr(transform, "fill_mask", None) is not None:
        transform.fill_mask = VOID
    for part in getattr(transform, "transforms", ()):
        fill_void(part)
