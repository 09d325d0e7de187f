"""Keeps decoded scenes, so that an epoch costs no decoding."""

from functools import partial
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from gald.data.dataset import IDENTITY_LUT, BaseDataset, RawSample
from gald.data.loading.decoded import MappedBlocks, build, decode, estimate, open_decoded
from gald.progress import in_order, say

_MODES = ("none", "ram", "decoded")


def cached(dataset: BaseDataset, mode: str, cache_dir: str) -> BaseDataset:
    """Give back the scenes, decoded once where the mode says so.

    Args:
        dataset: where the pixels come from.
        mode: `none`; `ram`, all pixels in the memory of this process, which the workers of a loader
            share where they are forked; each training process of a machine has a copy of its own.
            `decoded`, all pixels in one file below `cache_dir` that is mapped into memory, shared
            by all processes and found again by later runs.
        cache_dir: where that file is kept.

    Raises:
        ValueError: another mode; what is decoded would not fit; the folder cannot be written.
        SampleError: a scene that cannot be decoded, or one with an unknown label.
    """
    if mode not in _MODES:
        raise ValueError(f"data.cache is {mode!r}; choose none, ram or decoded")
    if mode == "ram":
        return _in_memory(dataset)
    if mode == "decoded":
        folder = Path(cache_dir).expanduser() / "decoded" / dataset.cache_name()
        if not folder.exists():
            build(dataset, folder)
        return CachedDataset(dataset, *open_decoded(folder))
    return dataset


class CachedDataset(BaseDataset):
    """Scenes whose pixels are there already, with train ids for labels.

    Args:
        source: where they come from.
        shapes: height and width of each.
        blocks: bytes of each: the image, then the mask.
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
        """As the source says."""
        return self.source.image_name(index)

    def pixels(self, index: int) -> RawSample:
        """Views of what is kept, which cannot be written."""
        height, width = self.shapes[index]
        block = self.blocks[index]
        image, mask = block[: 3 * height * width], block[3 * height * width :]
        return RawSample(image.reshape(height, width, 3), mask.reshape(height, width), IDENTITY_LUT)

    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint()

    def cache_name(self) -> str:
        """That of the source, so that what is derived from either is found from both."""
        return self.source.cache_name()


def _in_memory(dataset: BaseDataset) -> CachedDataset:
    needed, available = estimate(dataset, range(len(dataset))), _available_memory()
    free = "" if available is None else f" (available {decimal(available)})"
    about = f"{len(dataset)} scenes into memory, about {decimal(needed)}"
    if available is not None and needed > available:
        raise ValueError(
            f"decoding {about}, does not fit{free}; set data.cache=decoded, which keeps them in a "
            "file, or data.cache=none"
        )
    say(f"decoding {about}{free}")
    decoded = list(in_order(partial(decode, dataset), range(len(dataset)), "decode"))
    for block in decoded:
        block.pixels.flags.writeable = False  # as a mapped file is: no transform changes the cache
    shapes = np.array([block.shape for block in decoded])
    return CachedDataset(dataset, shapes, [block.pixels for block in decoded])


def _available_memory() -> int | None:
    """Bytes that can be taken before the machine swaps, files held in memory not counted."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
