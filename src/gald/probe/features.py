"""Features of images: the maps of a frozen backbone in half precision, in a verified file."""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.data.dataset import BaseDataset
from gald.data.labels import UNKNOWN
from gald.data.loading.blocks import Block, Words, build, open_blocks
from gald.data.reading.sample_error import SampleError
from gald.model.backbone import TimmBackbone
from gald.run.provenance import digest_tensors

FORMAT = 1  # increase it when the same images and weights would give other bytes
_HALF = 2  # bytes of a number


class FrozenBackbone(nn.Module):
    """Stand-in for a backbone with known maps: it has the shapes, and computes nothing.

    Args:
        backbone: the backbone.

    Shape:
        image: (B, 3, H, W) -> zeros of the shapes of the backbone's maps
    """

    def __init__(self, backbone: TimmBackbone) -> None:
        super().__init__()
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_rule = backbone.size_rule

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        height, width = image.shape[-2:]
        pairs = zip(self.channels, self.strides, strict=True)
        return tuple(
            torch.zeros(len(image), c, -(-height // s), -(-width // s), device=image.device)
            for c, s in pairs
        )


class Layout(NamedTuple):
    """Places of the arrays in the bytes of an image: the mask, then the maps of each view.

    Attributes:
        size: height and width of the mask.
        shapes: channels, height and width of each map.
        views: 1, or 2 with the mirror image.
    """

    size: tuple[int, int]
    shapes: tuple[tuple[int, int, int], ...]
    views: int

    @property
    def mask_bytes(self) -> int:
        """Bytes of the mask, rounded up, so that the maps begin at an even place."""
        height, width = self.size
        return -(-height * width // 4) * 4

    @property
    def bytes(self) -> int:
        """Bytes of an image, rounded up to a multiple of four, as blocks have."""
        values = self.views * sum(int(np.prod(shape)) for shape in self.shapes)
        return self.mask_bytes + -(-values * _HALF // 4) * 4

    def pack(self, mask: np.ndarray, maps: Sequence[Tensor]) -> Block:
        """Pack a mask (H, W) uint8 and maps (views, c, h, w)."""
        pixels = np.zeros(self.bytes, np.uint8)
        pixels[: mask.size] = mask.ravel()
        numbers = pixels[self.mask_bytes :].view(np.float16)
        start = 0
        for view in range(self.views):
            for one in maps:
                values = one[view].flatten().numpy()
                numbers[start : start + values.size] = values
                start += values.size
        return Block((1, self.bytes // 4), pixels)

    def mask(self, pixels: np.ndarray) -> np.ndarray:
        """Return the mask (H, W) uint8 in the bytes of an image."""
        height, width = self.size
        return pixels[: height * width].reshape(height, width)

    def maps(self, pixels: np.ndarray, view: int) -> list[np.ndarray]:
        """Return the maps (c, h, w) float16 of a view in the bytes of an image."""
        numbers = pixels[self.mask_bytes :].view(np.float16)
        counts = [int(np.prod(shape)) for shape in self.shapes]
        start = view * sum(counts)
        result = []
        for shape, count in zip(self.shapes, counts, strict=True):
            result.append(numbers[start : start + count].reshape(shape))
            start += count
        return result


class FeatureSource:
    """Features of the images of a dataset, see `gald.data.loading.blocks.Source`.

    Args:
        dataset: the images.
        backbone: the backbone, in evaluation mode.
        layout: places of the arrays.
        device: device of the backbone.
    """

    words = Words(
        "compute features",
        "computing the features of",
        "set probe.cache_dir to a folder on another disk",
    )

    def __init__(
        self, dataset: BaseDataset, backbone: TimmBackbone, layout: Layout, device: torch.device
    ) -> None:
        self.dataset, self.backbone, self.layout = dataset, backbone, layout
        self.device = device
        self._one_at_a_time = threading.Lock()  # the backbone; images are decoded beside it

    def __len__(self) -> int:
        return len(self.dataset)

    def image_name(self, index: int) -> str:
        """Return the name in the dataset."""
        return self.dataset.image_name(index)

    def estimate(self, indices: range) -> int:
        """Return the size of the features of some images in bytes."""
        return len(indices) * self.layout.bytes

    def block(self, index: int) -> Block:
        """Compute the features of one image.

        Raises:
            SampleError: the image cannot be read, or its mask has an unknown label.
            ValueError: a number does not fit into half precision.
        """
        image, labels, lut = self.dataset.pixels(index)
        mask = cv2.LUT(labels, lut)
        if (mask == UNKNOWN).any():
            raise SampleError(self.dataset.unknown_label(index))
        image, mask = resized(image, mask, self.layout.size)
        views = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
        if self.layout.views == 2:
            views = torch.cat([views, views.flip(3)])
        with self._one_at_a_time, torch.no_grad():
            maps = [one.half().cpu() for one in self.backbone(views.to(self.device))]
        if not all(one.isfinite().all() for one in maps):
            raise ValueError(
                f"the backbone's maps of {self.image_name(index)} have numbers above 65504, which "
                "do not fit into half precision; choose another model/backbone for gald probe"
            )
        return self.layout.pack(mask, maps)


def resized(
    image: np.ndarray, mask: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image by areas or linearly, and its mask to the nearest label.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8.
        size: new height and width.
    """
    height, width = size
    if mask.shape == (height, width):
        return image, mask
    shrinks = height <= mask.shape[0] and width <= mask.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return (
        cv2.resize(image, (width, height), interpolation=how),
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT),
    )


class Features:
    """Features and masks of the images of one split.

    Args:
        dataset: the images.
        backbone: the frozen backbone.
        size: height and width to which the images are resized.
        mirrored: whether there is a second view, the mirror image.
        cache_dir: folder of the file.
        device: device of the backbone, which computes what the file does not have yet.
        groups: the group of each image, by index, see `gald.data.groups`.

    Attributes:
        names: names of the images.
        groups: the group of each image by its name, or None.
        folder: folder of the file.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        backbone: TimmBackbone,
        size: tuple[int, int],
        mirrored: bool,
        cache_dir: str,
        device: torch.device,
        groups: Sequence[str] | None = None,
    ) -> None:
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, *size, device=device))
        shapes = tuple((c, h, w) for _, c, h, w in (one.shape for one in maps))
        self.layout = Layout(size, shapes, 1 + mirrored)
        self.names = [dataset.image_name(index) for index in range(len(dataset))]
        self.groups = None if groups is None else dict(zip(self.names, groups, strict=True))
        name = f"{dataset.cache_name()}-{_key(backbone, self.layout)}"
        self.folder = Path(cache_dir).expanduser() / "features" / name
        if not self.folder.exists():
            build(FeatureSource(dataset, backbone, self.layout, device), self.folder)
        _, self._blocks = open_blocks(self.folder)

    def __len__(self) -> int:
        return len(self.names)

    def masks(self, indices: Sequence[int]) -> np.ndarray:
        """Return masks (B, H, W) uint8, void 255."""
        return np.stack([self.layout.mask(self._blocks[index]) for index in indices])

    def maps(self, indices: Sequence[int], mirror: Sequence[bool]) -> list[np.ndarray]:
        """Return the backbone's maps (B, c, h, w) float16 of images or of their mirror images."""
        views = [
            self.layout.maps(self._blocks[index], int(view))
            for index, view in zip(indices, mirror, strict=True)
        ]
        return [np.stack(level) for level in zip(*views, strict=True)]


def _key(backbone: TimmBackbone, layout: Layout) -> str:
    """Hash what the features depend on besides the images: weights, structure and layout."""
    digest = hashlib.sha256()
    digest_tensors(digest, backbone.state_dict())
    facts: dict[str, Any] = {
        "format": FORMAT,
        "network": str(backbone.net),
        "input": [backbone.flip, backbone.mean.tolist(), backbone.std.tolist()],
        "layout": layout,
        "torch": torch.__version__,
    }
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]
