"""Decoded samples in a file: the raw bytes of each sample's image and then of its mask."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from gald.data.dataset import BaseDataset
from gald.data.labels import UNKNOWN
from gald.data.loading.blocks import Block, Words
from gald.data.loading.blocks import build as build_blocks
from gald.data.reading.sample_error import SampleError

_MEASURED = 32  # samples that are read to estimate the size of all


def decode(dataset: BaseDataset, index: int) -> Block:
    """Decode one sample and map its labels, which must all be known."""
    image, labels, lut = dataset.pixels(index)
    mask = cv2.LUT(labels, lut)
    if (mask == UNKNOWN).any():
        raise SampleError(dataset.unknown_label(index))
    height, width = mask.shape
    return Block((height, width), np.concatenate([image.ravel(), mask.ravel()]))


def estimate(dataset: BaseDataset, indices: range) -> int:
    """Estimate the decoded size of samples in bytes from some of them."""

    def size(index: int) -> int | None:
        try:
            return 4 * dataset.labels(index)[0].size
        except SampleError:  # raised again when it is decoded, after all samples before it are kept
            return None

    sample = indices[:: max(1, len(indices) // _MEASURED)]
    with ThreadPoolExecutor() as pool:
        sizes = [n for n in pool.map(size, sample) if n is not None]
    return round(len(indices) * sum(sizes) / max(1, len(sizes)))


class Decoding:
    """Samples of a dataset as blocks, see `gald.data.loading.blocks.Source`.

    Args:
        dataset: the samples.
    """

    words = Words(
        "decode",
        "decoding",
        "set data.cache_dir to a folder on another disk, or data.cache=none",
    )

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def image_name(self, index: int) -> str:
        """Return the name in the dataset."""
        return self.dataset.image_name(index)

    def block(self, index: int) -> Block:
        """Decode one sample."""
        return decode(self.dataset, index)

    def estimate(self, indices: range) -> int:
        """Estimate the decoded size in bytes."""
        return estimate(self.dataset, indices)


def build(dataset: BaseDataset, folder: Path) -> None:
    """Decode all samples into a folder, see `gald.data.loading.blocks.build`.

    Raises:
        ValueError: the samples do not fit on the disk, or the disk fails.
        SampleError: a sample cannot be decoded; those before it are kept.
    """
    build_blocks(Decoding(dataset), folder)
