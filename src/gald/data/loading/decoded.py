"""A file of decoded scenes: made so that a stop loses little, and opened only when it is whole.

The folder holds `pixels.u8`, each scene's image and then its mask as plain bytes, and `index.json`.
While it is made it is called `FOLDER.partial` and has a journal of what was written; a later run
goes on from there. It gets its name when all bytes have been read back from the disk.
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import cv2
import numpy as np
from filelock import FileLock, Timeout
from rich import progress
from rich.filesize import decimal

from gald.data.dataset import BaseDataset
from gald.data.labels import UNKNOWN
from gald.data.reading.files import SampleError
from gald.progress import console, in_order, say

T = TypeVar("T")
FORMAT = 1  # raise it when other bytes are stored for the same files
_SAMPLE = 32  # scenes looked at to estimate the size of all
_REMEDY = "set data.cache_dir to a folder on another disk, or data.cache=none"


class Entry(NamedTuple):
    """One scene in the file."""

    offset: int
    height: int
    width: int
    crc32: int
    name: str

    @property
    def size(self) -> int:
        """Bytes of image and mask."""
        return 4 * self.height * self.width


class Block(NamedTuple):
    """A decoded scene.

    Attributes:
        shape: height and width.
        pixels: (4 * height * width,) uint8, the RGB image and then the mask of train ids.
    """

    shape: tuple[int, int]
    pixels: np.ndarray


def decode(dataset: BaseDataset, index: int) -> Block:
    """Decode one scene and map its labels, which must all be known."""
    image, labels, lut = dataset.pixels(index)
    mask = cv2.LUT(labels, lut)
    if (mask == UNKNOWN).any():
        raise SampleError(dataset.unknown_label(index))
    height, width = mask.shape
    return Block((height, width), np.concatenate([image.ravel(), mask.ravel()]))


def estimate(dataset: BaseDataset, indices: range) -> int:
    """Bytes that scenes will take once decoded, about: as many as some of them do."""

    def size(index: int) -> int | None:
        try:
            return 4 * dataset.labels(index)[0].size
        except SampleError:  # said when its turn comes, with all before it kept
            return None

    sample = indices[:: max(1, len(indices) // _SAMPLE)]
    with ThreadPoolExecutor() as pool:
        sizes = [found for found in pool.map(size, sample) if found is not None]
    return round(len(indices) * sum(sizes) / max(1, len(sizes)))


def build(dataset: BaseDataset, folder: Path) -> None:
    """Decode all scenes into a folder that appears when it is whole, or go on with it.

    Of several processes that want the same folder one makes it, and the others wait for it.

    Raises:
        ValueError: it will not fit on the disk, or the disk fails.
        SampleError: a scene that cannot be decoded; those before it are kept.
    """
    lock = FileLock(f"{folder}.lock")
    with _report_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"waiting for another process that decodes into {folder}")
            lock.acquire()
    try:
        if not folder.exists():
            _build(dataset, folder)
    finally:
        lock.release()


def _build(dataset: BaseDataset, folder: Path) -> None:
    begun = _PartialCache(folder)
    rest = range(len(begun.entries), len(dataset))
    if rest:
        _announce(dataset, folder, rest)
    for index, block in zip(rest, in_order(partial(decode, dataset), rest, "decode"), strict=True):
        begun.append(block, dataset.image_name(index))
    begun.finish()


def _announce(dataset: BaseDataset, folder: Path, rest: range) -> None:
    """Say what will be decoded, or that it will not fit."""
    needed = estimate(dataset, rest)
    free = shutil.disk_usage(folder.parent).free
    count = f"{len(rest)} scenes"
    if rest.start:
        count = f"the last {len(rest)} of {len(dataset)} scenes"
    line = f"decoding {count} into {folder}, about {decimal(needed)}"
    if needed > free:
        raise ValueError(f"{line}, does not fit on its disk ({decimal(free)} free); {_REMEDY}")
    line += f" (free {decimal(free)})"
    for other, size in _others(folder):
        line += f"; {other} ({decimal(size)}) is of other files or settings, delete it if unused"
    say(line)


def _others(folder: Path) -> list[tuple[Path, int]]:
    """Folders of the same split with another fingerprint, and their sizes."""
    split = folder.name.rpartition("-")[0]
    found = []
    for pixels in sorted(folder.parent.glob("*/pixels.u8")):
        other = pixels.parent
        name = other.name.removesuffix(".partial")
        if name != folder.name and name.rpartition("-")[0] == split:
            with suppress(OSError):  # another process may just have finished it
                found.append((other, pixels.stat().st_size))
    return found


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


class _PartialCache:
    """A folder under way: what an earlier run left and was right, and what this one adds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = _partial(folder)
        self.pixels = self.partial / "pixels.u8"
        self.journal = self.partial / "journal.jsonl"
        self.entries: list[Entry] = []
        self.end = 0
        with _report_disk_errors(folder):
            self.partial.mkdir(exist_ok=True)
            self.pixels.touch()
            self.journal.touch()
            self._take_over()

    def _take_over(self) -> None:
        """Keep what is listed and on the disk with the right checksum, cut off the rest."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        kept = 0
        with self.pixels.open("rb") as pixels:
            for line in _shown(lines, "check what is there"):
                entry = _parse(line)
                if entry is None or entry.offset != self.end or not _is_right(pixels, entry):
                    break
                self.entries.append(entry)
                self.end += entry.size
                kept += len(line)
        os.truncate(self.pixels, self.end)
        os.truncate(self.journal, kept)

    def append(self, block: Block, name: str) -> None:
        """Add a scene: its bytes, and then, that they are there."""
        entry = Entry(self.end, *block.shape, zlib.crc32(block.pixels.data), name)
        with _report_disk_errors(self.folder):
            _append(self.pixels, block.pixels.data)
            _append(self.journal, json.dumps(entry._asdict()).encode() + b"\n")
        self.entries.append(entry)
        self.end += entry.size

    def finish(self) -> None:
        """Read all of it back, write the index and give the folder its name."""
        with _report_disk_errors(self.folder):
            with self.pixels.open("r+b") as pixels:
                os.fsync(pixels.fileno())
                if hasattr(os, "posix_fadvise"):  # or memory would answer in place of the disk
                    os.posix_fadvise(pixels.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for entry in _shown(self.entries, "verify"):
                    if not _is_right(pixels, entry):
                        raise ValueError(
                            f"{self.pixels} does not hold what was written for {entry.name}; check "
                            "the disk and repeat the command, which goes on from there, or "
                            + _REMEDY
                        )
            index = {"format": FORMAT, "scenes": [entry._asdict() for entry in self.entries]}
            with (self.partial / "index.json").open("w") as file:
                json.dump(index, file)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self.partial)
            self.partial.rename(self.folder)
            _sync_folder(self.folder.parent)
            (self.folder / self.journal.name).unlink()


def _parse(line: bytes) -> Entry | None:
    """A line of the journal, unless it was cut off or damaged."""
    try:
        return Entry(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def _is_right(pixels: IO[bytes], entry: Entry) -> bool:
    """Whether the next bytes are those of the scene."""
    return zlib.crc32(pixels.read(entry.size)) == entry.crc32


def _append(path: Path, data: bytes | memoryview) -> None:
    # Unbuffered: after a kill the file holds all that was written, and a failed write leaves
    # nothing that closing would try again.
    with path.open("ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(items: list[T], title: str) -> Iterator[T]:
    if items:
        yield from progress.track(items, title, console=console())


@contextmanager
def _report_disk_errors(folder: Path) -> Generator[None]:
    """Say what the disk refused, and what becomes of what is decoded already."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ValueError(
                f"decoding into {folder} stopped ({reason}); make room and repeat the command, "
                f"which goes on where it stopped, or {_REMEDY}"
            ) from None
        raise ValueError(
            f"cannot write {folder} ({reason}); set data.cache_dir to a folder that can be "
            "written, or data.cache=none"
        ) from None


def open_decoded(folder: Path) -> tuple[np.ndarray, "MappedBlocks"]:
    """Open a folder that `build` made: heights and widths, and the bytes of each scene.

    Raises:
        ValueError: the folder is damaged, or another version made it.
    """
    remedy = f"delete {folder}, it is made anew"
    path, pixels = folder / "index.json", folder / "pixels.u8"
    try:
        index = json.loads(path.read_bytes())
        if index["format"] != FORMAT:
            raise ValueError(f"its format is {index['format']}, known is {FORMAT}")
        entries = [Entry(**scene) for scene in index["scenes"]]
        size = pixels.stat().st_size
    except OSError as error:
        raise ValueError(f"cannot read {error.filename} ({error.strerror}); {remedy}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot use {path} ({error}); {remedy}") from None
    expected = sum(entry.size for entry in entries)
    if size != expected:
        raise ValueError(f"{pixels} has {size} bytes, its index says {expected}; {remedy}")
    shapes = np.array([(entry.height, entry.width) for entry in entries])
    starts = np.array([entry.offset for entry in entries])
    return shapes, MappedBlocks(pixels, starts, 4 * shapes.prod(axis=1))


class MappedBlocks:
    """Parts of a file that is mapped into memory by each process that asks for one.

    Args:
        path: the file.
        starts: where the parts begin.
        sizes: their bytes.
    """

    def __init__(self, path: Path, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.path = path
        self.starts = starts
        self.sizes = sizes
        self._map: np.ndarray | None = None

    def __getitem__(self, index: int) -> np.ndarray:
        if self._map is None:
            self._map = np.asarray(np.memmap(self.path, np.uint8, "r"))
        start = self.starts[index]
        return self._map[start : start + self.sizes[index]]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_map": None}  # another process maps the file, and copies nothing
