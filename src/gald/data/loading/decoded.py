"""File of decoded samples that survives interruptions while it is written.

The folder contains `pixels.u8`, the raw bytes of each sample's image and then of its mask, and
`index.json`. Until it is complete it is called `FOLDER.partial` and has a journal of the samples
written so far; a later run resumes from there. It is renamed to `FOLDER` after all bytes have been
read back from the disk and verified.
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
from typing import IO, Any, NamedTuple, TypeVar

import cv2
import numpy as np
from filelock import FileLock, Timeout
from rich import progress
from rich.filesize import decimal

from gald.data.dataset import BaseDataset
from gald.data.labels import UNKNOWN
from gald.data.reading.files import SampleError
from gald.errors import disk_remedy
from gald.progress import Lines, console, in_order, say
from gald.run.atomic import sync, write_bytes

T = TypeVar("T")
JOURNAL = "journal.jsonl"
FORMAT = 1  # increase it when the stored bytes of the same files change
_MEASURED = 32  # samples that are read to estimate the size of all
_REMEDY = "set data.cache_dir to a folder on another disk, or data.cache=none"


class Entry(NamedTuple):
    """One sample in the file."""

    offset: int
    height: int
    width: int
    crc32: int
    name: str

    @property
    def size(self) -> int:
        """Size of image and mask in bytes."""
        return 4 * self.height * self.width


class Block(NamedTuple):
    """A decoded sample.

    Attributes:
        shape: height and width.
        pixels: (4 * height * width,) uint8, the RGB image and then the mask of train ids.
    """

    shape: tuple[int, int]
    pixels: np.ndarray


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


def build(dataset: BaseDataset, folder: Path) -> None:
    """Decode all samples into a folder that appears when it is complete, or resume it.

    If several processes build the same folder, one decodes and the others wait for it.

    Raises:
        ValueError: the samples do not fit on the disk, or the disk fails.
        SampleError: a sample cannot be decoded; those before it are kept.
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
    partial_cache = _PartialCache(folder)
    rest = range(len(partial_cache.entries), len(dataset))
    if rest:
        _announce(dataset, folder, rest)
    for index, block in zip(rest, in_order(partial(decode, dataset), rest, "decode"), strict=True):
        partial_cache.append(block, dataset.image_name(index))
    partial_cache.finish()


def _announce(dataset: BaseDataset, folder: Path, rest: range) -> None:
    """Print what will be decoded.

    Raises:
        ValueError: it does not fit on the disk.
    """
    needed = estimate(dataset, rest)
    free = shutil.disk_usage(folder.parent).free
    count = f"{len(rest)} samples"
    if rest.start:
        count = f"the last {len(rest)} of {len(dataset)} samples"
    line = f"decoding {count} into {folder}, about {decimal(needed)}"
    if needed > free:
        raise ValueError(f"{line}, does not fit on its disk ({decimal(free)} free); {_REMEDY}")
    line += f" (free {decimal(free)})"
    for other, size in _others(folder):
        line += f"; {other} ({decimal(size)}) is from other files or settings, delete it if unused"
    say(line)


def _others(folder: Path) -> list[tuple[Path, int]]:
    """List folders of the same split with another fingerprint, and their sizes."""
    split = folder.name.rpartition("-")[0]
    others = []
    for pixels in sorted(folder.parent.glob("*/pixels.u8")):
        other = pixels.parent
        name = other.name.removesuffix(".partial")
        if name != folder.name and name.rpartition("-")[0] == split:
            with suppress(OSError):  # another process may have renamed it meanwhile
                others.append((other, pixels.stat().st_size))
    return others


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


class _PartialCache:
    """Incomplete folder: the valid samples of an earlier run, and those that this run appends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = _partial(folder)
        self.pixels = self.partial / "pixels.u8"
        self.journal = self.partial / JOURNAL
        self.entries: list[Entry] = []
        self.end = 0
        with _report_disk_errors(folder):
            self.partial.mkdir(exist_ok=True)
            self.pixels.touch()
            self.journal.touch()
            self._recover()

    def _recover(self) -> None:
        """Keep the samples with a journal entry and the right checksum, truncate the rest."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        kept = 0
        with self.pixels.open("rb") as pixels:
            for line in _shown(lines, "check decoded samples"):
                entry = _read_entry(line)
                if entry is None or entry.offset != self.end or not _is_valid(pixels, entry):
                    break
                self.entries.append(entry)
                self.end += entry.size
                kept += len(line)
        os.truncate(self.pixels, self.end)
        os.truncate(self.journal, kept)

    def append(self, block: Block, name: str) -> None:
        """Append a sample: first its bytes, then its journal entry."""
        entry = Entry(self.end, *block.shape, zlib.crc32(block.pixels.data), name)
        with _report_disk_errors(self.folder):
            _append(self.pixels, block.pixels.data)
            _append(self.journal, json.dumps(entry._asdict()).encode() + b"\n")
        self.entries.append(entry)
        self.end += entry.size

    def finish(self) -> None:
        """Verify all bytes, write the index and rename the folder."""
        with _report_disk_errors(self.folder):
            with self.pixels.open("r+b") as pixels:
                os.fsync(pixels.fileno())
                if hasattr(os, "posix_fadvise"):  # drop the page cache, to read from the disk
                    os.posix_fadvise(pixels.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for entry in _shown(self.entries, "verify"):
                    if not _is_valid(pixels, entry):
                        raise ValueError(
                            f"{self.pixels} does not contain the bytes written for {entry.name}; "
                            "check the disk and repeat the command, which resumes from there, or "
                            + _REMEDY
                        )
            scenes = [entry._asdict() for entry in self.entries]
            index = {"format": FORMAT, "scenes": scenes, "crc32": _crc32(scenes)}
            text = json.dumps(index).encode()
            write_bytes(self.partial / "index.json", text)
            self.partial.rename(self.folder)
            sync(self.folder.parent)
            (self.folder / JOURNAL).unlink()


def _crc32(scenes: list[dict[str, Any]]) -> int:
    return zlib.crc32(json.dumps(scenes).encode())


def _read_entry(line: bytes) -> Entry | None:
    """Read a line of the journal; None if it is truncated or damaged."""
    try:
        return Entry(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def _is_valid(pixels: IO[bytes], entry: Entry) -> bool:
    """Return whether the next bytes have the sample's checksum."""
    return zlib.crc32(pixels.read(entry.size)) == entry.crc32


def _append(path: Path, data: bytes | memoryview) -> None:
    # Unbuffered: a killed process loses nothing that was written, and closing after a failed write
    # does not try to write again.
    with path.open("ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def _shown(items: list[T], title: str) -> Iterator[T]:
    if items:
        lines = Lines(title, len(items))
        for number, item in enumerate(progress.track(items, title, console=console())):
            lines.show(number)
            yield item


@contextmanager
def _report_disk_errors(folder: Path) -> Generator[None]:
    """Turn errors of the disk into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free disk space" if full else disk_remedy(error)
        if full or error.errno in (errno.EFBIG, errno.EMFILE, errno.ENFILE):
            raise ValueError(
                f"decoding into {folder} stopped ({reason}); {remedy} and repeat the "
                f"command, which resumes where it stopped, or {_REMEDY}"
            ) from None
        raise ValueError(
            f"cannot write {folder} ({reason}); set data.cache_dir to a writable folder, or "
            "data.cache=none"
        ) from None


def open_decoded(folder: Path) -> tuple[np.ndarray, "MappedBlocks"]:
    """Open a folder from `build`: heights and widths, and the bytes of each sample.

    Raises:
        ValueError: the folder is damaged, or has another format.
    """
    remedy = f"delete {folder} and repeat the command, which decodes again"
    path, pixels = folder / "index.json", folder / "pixels.u8"
    with suppress(OSError):  # left by a process that was killed as it finished
        (folder / JOURNAL).unlink(missing_ok=True)
    try:
        index = json.loads(path.read_bytes())
        if index["format"] != FORMAT:
            raise ValueError(f"its format is {index['format']}, expected {FORMAT}")
        if index.get("crc32", _crc32(index["scenes"])) != _crc32(index["scenes"]):
            raise ValueError("its checksum is not the one that was written")
        entries = [Entry(**entry) for entry in index["scenes"]]
        size = pixels.stat().st_size
    except OSError as error:
        raise ValueError(f"cannot read {error.filename} ({error.strerror}); {remedy}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot use {path} ({error}); {remedy}") from None
    expected = sum(entry.size for entry in entries)
    if size != expected:
        raise ValueError(f"{pixels} has {size} bytes, expected {expected}; {remedy}")
    shapes = np.array([(entry.height, entry.width) for entry in entries])
    return shapes, MappedBlocks(pixels, entries)


class MappedBlocks:
    """Samples in a file; each process maps the file into memory at its first access.

    A process checks the checksum of a sample when it first reads it.

    Args:
        path: the file.
        entries: place and checksum of each sample.

    Raises:
        ValueError: the bytes of a sample have changed on the disk; raised when it is read.
    """

    def __init__(self, path: Path, entries: list[Entry]) -> None:
        self.path = path
        self.starts = np.array([entry.offset for entry in entries])
        self.sizes = np.array([entry.size for entry in entries])
        self.checksums = np.array([entry.crc32 for entry in entries], np.uint32)
        self._map: np.ndarray | None = None
        self._checked = np.zeros(len(entries), bool)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._map is None:
            self._map = np.asarray(np.memmap(self.path, np.uint8, "r"))
        start = self.starts[index]
        block = self._map[start : start + self.sizes[index]]
        if not self._checked[index]:
            if zlib.crc32(block.data) != self.checksums[index]:
                raise ValueError(
                    f"{self.path} is damaged at sample {index}: its checksum is not the one that "
                    f"was written; delete {self.path.parent} and repeat the command, which decodes "
                    "again"
                )
            self._checked[index] = True
        return block

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_map": None}  # the other process maps the file itself
