"""Lists of files: those of a folder or a zip file, and those that a text file names."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath

from gald.data.reading.files import open_archive, read_bytes, split_archive
from gald.data.reading.sample_error import SampleError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Folders with copies of images that systems and tools make beside the real ones.
_NO_DATA = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """List a folder's files at any depth, sorted; empty if the folder does not exist.

    Hidden files and folders are ignored, see `is_hidden`.

    Raises:
        SampleError: a folder below it cannot be listed.
    """
    archive, inside = split_archive(folder)
    if archive is None:
        files = _walk(folder)
    else:
        prefix = f"{inside}/" if inside else ""
        names = (info.filename for info in open_archive(archive).infolist() if not info.is_dir())
        files = (archive / name for name in names if name.startswith(prefix))
    return sorted(
        path
        for path in files
        if path.suffix.lower() in suffixes and not is_hidden(path.relative_to(folder))
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are followed, each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, onerror=_refuse_unlisted, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        kept = (Path(place, name) for name in folders if not is_hidden(PurePath(name)))
        # links last, so that a folder has its own name, whatever the order of the disk
        folders[:] = [path.name for path in sorted(kept, key=lambda p: (p.is_symlink(), p.name))]
        yield from (Path(place, name) for name in names)


def _refuse_unlisted(error: OSError) -> None:
    """Refuse a folder that cannot be listed: its files would be left out without a word."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise SampleError(
            f"cannot list the folder {error.filename} ({error.strerror}); make it readable, or "
            "move it to another place"
        )


def is_hidden(relative: PurePath) -> bool:
    """Return whether a file is hidden or a system's copy, such as `._a.png` or `__MACOSX/a.png`.

    Args:
        relative: path below the searched folder, which itself may be hidden.
    """
    return any(part.startswith(".") or part in _NO_DATA for part in relative.parts)


def read_lines(path: Path) -> list[str]:
    """Read a list of names: UTF-8 with or without byte order mark, and any line ends.

    Spaces at the end of a line are removed; empty lines stay, so that line numbers are right.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SampleError(
            f"{path} is not UTF-8 text; save it as UTF-8 in your editor, for example"
        ) from None
    return [composed(line.rstrip()) for line in text.splitlines()]


def composed(name: str) -> str:
    """Return a name with its accents composed (NFC): macOS and zip files may store them apart."""
    return unicodedata.normalize("NFC", name)
