"""File of equal or unequal blocks of bytes, one a sample, that survives interruptions.

The folder contains `pixels.u8`, the bytes of all blocks, and `index.json`. Until it is complete it
is called `FOLDER.partial` and has a journal of the blocks written so far; a later run resumes from
there. It is renamed to `FOLDER` after all bytes have been read back from the disk and verified.
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from rich import progress
from rich.filesize import decimal

from gald.errors import disk_remedy
from gald.progress import Lines, console, in_order, say
from gald.run.atomic import sync, write_bytes

T = TypeVar("T")
JOURNAL = "journal.jsonl"
FORMAT = 1  # increase it when the stored bytes of the same files change


class Words(NamedTuple):
    """Words of messages about a file.

    Attributes:
        verb: what is done with a sample, as in `decode 12 of 367`.
        doing: the same as in `decoding 367 samples`.
        remedy: where else the file may go, or how to do without it.
    """

    verb: str
    doing: str
    remedy: str


class Entry(NamedTuple):
    """One block in the file: 4 * height * width bytes."""

    offset: int
    height: int
    width: int
    crc32: int
    name: str

    @property
    def size(self) -> int:
        """Number of bytes."""
        return 4 * self.height * self.width


class Block(NamedTuple):
    """Bytes of one sample.

    Attributes:
        shape: height and width.
        pixels: (4 * height * width,) uint8.
    """

    shape: tuple[int, int]
    pixels: np.ndarray


class Source(Protocol):
    """Samples of a file, by index.

    Attributes:
        words: words for messages.
    """

    words: Words

    def __len__(self) -> int: ...

    def image_name(self, index: int) -> str:
        """Return the name of a sample."""
        ...

    def block(self, index: int) -> Block:
        """Compute the bytes of a sample; several threads call it."""
        ...

    def estimate(self, indices: range) -> int:
        """Estimate the size of samples in bytes."""
        ...


def build(source: Source, folder: Path) -> None:
    """Write the blocks of all samples into a folder that appears when it is complete, or resume it.

    If several processes build the same folder, one does and the others wait for it.

    Raises:
        ValueError: the samples do not fit on the disk, or the disk fails.
        Exception: what `source.block` raises for a sample; those before it are kept.
    """
    lock = FileLock(f"{folder}.lock")
    with _report_disk_errors(folder, source.words):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"waiting for another process, which is {source.words.doing} into {folder}")
            lock.acquire()
    try:
        if not folder.exists():
            _build(source, folder)
    finally:
        lock.release()


def _build(source: Source, folder: Path) -> None:
    partial_file = _PartialFile(folder, source.words)
    rest = range(len(partial_file.entries), len(source))
    if rest:
        _announce(source, folder, rest)
    for index, block in zip(rest, in_order(source.block, rest, source.words.verb), strict=True):
        partial_file.append(block, source.image_name(index))
    partial_file.finish()


def _announce(source: Source, folder: Path, rest: range) -> None:
    """Print what will be done.

    Raises:
        ValueError: it does not fit on the disk.
    """
    needed, words = source.estimate(rest), source.words
    free = shutil.disk_usage(folder.parent).free
    count = f"{len(rest)} samples"
    if rest.start:
        count = f"the last {len(rest)} of {len(source)} samples"
    line = f"{words.doing} {count} into {folder}, about {decimal(needed)}"
    if needed > free:
        raise ValueError(f"{line}, does not fit on its disk ({decimal(free)} free); {words.remedy}")
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


class _PartialFile:
    """Incomplete folder: the valid samples of an earlier run, and those that this run appends."""

    def __init__(self, folder: Path, words: Words) -> None:
        self.folder, self.words = folder, words
        self.partial = _partial(folder)
        self.pixels = self.partial / "pixels.u8"
        self.journal = self.partial / JOURNAL
        self.entries: list[Entry] = []
        self.end = 0
        with _report_disk_errors(folder, words):
            self.partial.mkdir(exist_ok=True)
            self.pixels.touch()
            self.journal.touch()
            self._recover()

    def _recover(self) -> None:
        """Keep the samples with a journal entry and the right checksum, truncate the rest."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        kept = 0
        with self.pixels.open("rb") as pixels:
            for line in _shown(lines, "check the samples so far"):
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
        with _report_disk_errors(self.folder, self.words):
            _append(self.pixels, block.pixels.data)
            _append(self.journal, json.dumps(entry._asdict()).encode() + b"\n")
        self.entries.append(entry)
        self.end += entry.size

    def finish(self) -> None:
        """Verify all bytes, write the index and rename the folder."""
        with _report_disk_errors(self.folder, self.words):
            with self.pixels.open("r+b") as pixels:
                os.fsync(pixels.fileno())
                if hasattr(os, "posix_fadvise"):  # drop the page cache, to read from the disk
                    os.posix_fadvise(pixels.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for entry in _shown(self.entries, "verify"):
                    if not _is_valid(pixels, entry):
                        raise ValueError(
                            f"{self.pixels} does not contain the bytes written for {entry.name}; "
                            "check the disk and repeat the command, which resumes from there, or "
                            + self.words.remedy
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
def _report_disk_errors(folder: Path, words: Words) -> Generator[None]:
    """Turn errors of the disk into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free disk space" if full else disk_remedy(error)
        if full or error.errno in (errno.EFBIG, errno.EMFILE, errno.ENFILE):
            raise ValueError(
                f"{words.doing} into {folder} stopped ({reason}); {remedy} and repeat the "
                f"command, which resumes where it stopped, or {words.remedy}"
            ) from None
        raise ValueError(f"cannot write {folder} ({reason}); {words.remedy}") from None


def open_blocks(folder: Path) -> tuple[np.ndarray, "MappedBlocks"]:
    """Open a folder from `build`: heights and widths, and the bytes of each sample.

    Raises:
        ValueError: the folder is damaged, or has another format.
    """
    remedy = f"delete {folder} and repeat the command, which writes it again"
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
                    f"was written; delete {self.path.parent} and repeat the command, which writes "
                    "it again"
                )
            self._checked[index] = True
        return block

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_map": None}  # the other process maps the file itself
