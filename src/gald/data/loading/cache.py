"""Cache of decoded samples in memory or in a file."""

from functools import partial
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from gald.data.dataset import IDENTITY_LUT, BaseDataset, RawSample
from gald.data.loading.blocks import MappedBlocks, open_blocks
from gald.data.loading.decoded import build, decode, estimate
from gald.progress import in_order, say

_MODES = ("none", "ram", "decoded")


def cached(dataset: BaseDataset, mode: str, cache_dir: str) -> BaseDataset:
    """Return a dataset with decoded samples, or the dataset itself for mode `none`.

    Args:
        dataset: source of the samples.
        mode: `none`; `ram`, all pixels in the memory of this process: forked loader workers share
            them, but each training process of a machine has its own copy; `decoded`, all pixels in
            one memory-mapped file below `cache_dir`, which all processes share and later runs
            reuse.
        cache_dir: folder of that file.

    Raises:
        ValueError: the mode is unknown, the pixels do not fit, or the folder cannot be written.
        SampleError: a sample cannot be decoded or has an unknown label.
    """
    if mode not in _MODES:
        raise ValueError(f"data.cache is {mode!r}; choose none, ram or decoded")
    if mode == "ram":
        return _in_memory(dataset)
    if mode == "decoded":
        folder = Path(cache_dir).expanduser() / "decoded" / dataset.cache_name()
        if not folder.exists():
            build(dataset, folder)
        return CachedDataset(dataset, *open_blocks(folder))
    return dataset


class CachedDataset(BaseDataset):
    """Dataset of decoded samples, with train ids as labels.

    Args:
        source: the dataset that was decoded.
        shapes: height and width of each sample.
        blocks: bytes of each sample: the image, then the mask.
    """

    def __init__(
        self, source: BaseDataset, shapes: np.ndarray, blocks: list[np.ndarray] | MappedBlocks
    ) -> None:
        self.source = source
        self.class_names = source.class_names  # ty: ignore[invalid-attribute-access]
        self.palette = source.palette  # ty: ignore[invalid-attribute-access]
        self.shapes = shapes
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.shapes)

    def image_name(self, index: int) -> str:
        """Return the name in the source."""
        return self.source.image_name(index)

    def image_path(self, index: int) -> str:
        """Return the path in the source."""
        return self.source.image_path(index)

    def pixels(self, index: int) -> RawSample:
        """Return read-only views of one sample."""
        height, width = self.shapes[index]
        block = self.blocks[index]
        image, mask = block[: 3 * height * width], block[3 * height * width :]
        return RawSample(image.reshape(height, width, 3), mask.reshape(height, width), IDENTITY_LUT)

    def fingerprint(self) -> str:
        """Return the fingerprint of the source."""
        return self.source.fingerprint()

    def cache_name(self) -> str:
        """Return the name of the source, so that both share derived files."""
        return self.source.cache_name()


def _in_memory(dataset: BaseDataset) -> CachedDataset:
    needed, available = estimate(dataset, range(len(dataset))), _available_memory()
    free = "" if available is None else f" (available {decimal(available)})"
    estimated = f"{len(dataset)} samples into memory, about {decimal(needed)}"
    if available is not None and needed > available:
        raise ValueError(
            f"decoding {estimated}, does not fit{free}; set data.cache=decoded, which keeps them "
            "in a file, or data.cache=none"
        )
    say(f"decoding {estimated}{free}")
    decoded = list(in_order(partial(decode, dataset), range(len(dataset)), "decode"))
    for block in decoded:
        block.pixels.flags.writeable = False  # like the mapped file: no transform changes the cache
    shapes = np.array([block.shape for block in decoded])
    return CachedDataset(dataset, shapes, [block.pixels for block in decoded])


def _available_memory() -> int | None:
    """Return the bytes available without swapping, or None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes[0]) * 1024 if kilobytes else None
