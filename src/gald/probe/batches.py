"""Batches of features: the same for the same seed, whichever cells ran before."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gald.data.loading.sampler import CropRequest, GlobalBatchSampler
from gald.model.truth import boundaries
from gald.probe.features import Features
from gald.probe.probe import Probe

_AUGMENT = 5  # separates this random stream from others with the same seed


Truth = Literal["own", "other"] | None


class Batch(NamedTuple):
    """Features of some images.

    Attributes:
        mask: train ids (B, H, W) uint8, void 255.
        maps: the backbone's maps, (B, c, h, w) float32.
        truth: true boundaries of these or of other images, (B, 1, H, W) in [0, 1], if wanted.
    """

    mask: Tensor
    maps: tuple[Tensor, ...]
    truth: Tensor | None


class Batches:
    """Batches of the images of a split.

    Args:
        features: the images.
        probe: how they are drawn, mirrored and cropped.
        strides: strides of the maps.
        truth: boundaries that are wanted: those of the image itself, of another one, or none.
        device: device of the tensors.

    Raises:
        ValueError: the crop does not fit.
    """

    def __init__(
        self,
        features: Features,
        probe: Probe,
        strides: Sequence[int],
        truth: Truth,
        device: torch.device,
    ) -> None:
        self.features, self.probe, self.strides = features, probe, strides
        self.truth, self.device = truth, device
        if probe.crop is not None:
            _check_crop(probe.size, probe.crop, max(strides))

    def of_training(self, seed: int) -> Iterator[tuple[int, Batch]]:
        """Yield the epoch and the batch of each step, with the images that gald train would draw.

        Raises:
            ValueError: there are fewer images than a batch has.
        """
        size, count = self.probe.batch_size, len(self.features)
        if count < size:
            raise ValueError(
                f"probe.batch_size is {size} but the training set has {count} images; set "
                f"probe.batch_size={count} or less"
            )
        sampler = GlobalBatchSampler(count, size, size, seed)
        for step in range(self.probe.steps):
            sampler.epoch, sampler.start = divmod(step, len(sampler))
            yield sampler.epoch, self._training(next(iter(sampler)), seed)

    def of_evaluation(self, size: int) -> Iterator[tuple[list[str], Batch]]:
        """Yield names and batches of all images, whole and not mirrored."""
        for start in range(0, len(self.features), size):
            indices = list(range(start, min(start + size, len(self.features))))
            names = [self.features.names[index] for index in indices]
            yield names, self._batch(*self._read(indices, [False] * len(indices)))

    def _training(self, requests: Sequence[CropRequest], seed: int) -> Batch:
        draws = [
            np.random.default_rng((_AUGMENT, seed, request.epoch, request.image)).random(3)
            for request in requests
        ]
        mirror = [bool(draw[0] < self.probe.flip) for draw in draws]
        masks, maps, shown = self._read([request.image for request in requests], mirror)
        if (crop := self.probe.crop) is not None:
            places = [_place(draw[1:], self.probe.size, crop, max(self.strides)) for draw in draws]
            masks, shown = (_cropped(one, places, crop, 1) for one in (masks, shown))
            pairs = zip(maps, self.strides, strict=True)
            maps = [_cropped(level, places, crop, stride) for level, stride in pairs]
        return self._batch(masks, maps, shown)

    def _read(
        self, indices: Sequence[int], mirror: Sequence[bool]
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Return the masks, the maps, and the masks with the boundaries that LD reads."""
        masks = shown = _flipped(self.features.masks(indices), mirror)
        if self.truth == "other":  # half the split away
            count = len(self.features)
            others = [(index + max(1, count // 2)) % count for index in indices]
            shown = _flipped(self.features.masks(others), mirror)
        return masks, self.features.maps(indices, mirror), shown

    def _batch(self, masks: np.ndarray, maps: Sequence[np.ndarray], shown: np.ndarray) -> Batch:
        truth = None
        if self.truth is not None:
            truth = boundaries(torch.from_numpy(shown).to(self.device))[:, None].float()
        levels = tuple(torch.from_numpy(level).to(self.device).float() for level in maps)
        return Batch(torch.from_numpy(masks).to(self.device), levels, truth)


def _flipped(masks: np.ndarray, mirror: Sequence[bool]) -> np.ndarray:
    pairs = zip(masks, mirror, strict=True)
    return np.stack([mask[:, ::-1] if mirrored else mask for mask, mirrored in pairs])


def _check_crop(size: Sequence[int], crop: Sequence[int], stride: int) -> None:
    for side, part in zip(size, crop, strict=True):
        if part % stride or part > side:
            raise ValueError(
                f"probe.crop={list(crop)} must be multiples of the backbone's largest stride "
                f"({stride}) and at most probe.size={list(size)}; set probe.crop=null to train on "
                "whole images"
            )


def _place(
    draw: np.ndarray, size: Sequence[int], crop: Sequence[int], stride: int
) -> tuple[int, int]:
    """Return top and left of a crop, on the grid of the largest stride."""
    top, left = (
        int(share * ((side - part) // stride + 1)) * stride
        for share, side, part in zip(draw, size, crop, strict=True)
    )
    return top, left


def _cropped(
    arrays: np.ndarray, places: Sequence[tuple[int, int]], size: Sequence[int], stride: int
) -> np.ndarray:
    height, width = (side // stride for side in size)
    return np.stack(
        [
            one[..., top // stride :, left // stride :][..., :height, :width]
            for one, (top, left) in zip(arrays, places, strict=True)
        ]
    )
