"""Input files of a command line: images and videos, and a unique output name for each."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gald.data.reading.listing import IMAGE_SUFFIXES, list_files

IMAGES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


class InputFile(NamedTuple):
    """An image or video, and the relative path of its outputs without suffix."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Return whether the suffix is that of a video."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(inputs: Sequence[str], target: Path) -> list[InputFile]:
    """List the files that the inputs name, each once, in the given order.

    Names keep the folders below the deepest common folder of all inputs. They keep the suffix
    where two files would otherwise share a name. So no prediction overwrites another.

    Args:
        inputs: files, folders (searched recursively), patterns, or `-` for a list on stdin.
        target: output folder; files below it are skipped when a folder is searched.

    Raises:
        FileNotFoundError: an input does not exist, or a folder or pattern has no image or video.
    """
    lines = (x for given in inputs for x in (_stdin() if given in ("-", "/dev/stdin") else [given]))
    files: dict[Path, None] = {}
    roots: list[str] = []
    for given in lines:
        root, paths = _expand(given)
        kept = [path for path in paths if path == root or not path.is_relative_to(target)]
        if not kept:
            raise FileNotFoundError(
                f"{given} has no image or video; give images ({', '.join(IMAGES)}) or videos "
                f"({', '.join(VIDEOS)})"
            )
        roots.append(str(root.parent if kept == [root] else root))
        files |= dict.fromkeys(kept)
    if not files:
        raise FileNotFoundError("the list on stdin is empty; give one file per line")
    base = Path(os.path.commonpath(roots))
    relative = [path.relative_to(base) for path in files]
    counts = Counter(path.with_suffix("") for path in relative)
    names = [
        path if counts[path.with_suffix("")] > 1 else path.with_suffix("") for path in relative
    ]
    return [InputFile(path, name.as_posix()) for path, name in zip(files, names, strict=True)]


def _stdin() -> Iterator[str]:
    return (line.strip() for line in sys.stdin if line.strip())


def _expand(given: str) -> tuple[Path, list[Path]]:
    """Return the root of an input and its files; the root of a single file is the file itself."""
    path = Path(given).expanduser().absolute()
    if path.is_file():
        return path, [path]
    if path.is_dir():
        return path, list_files(path, IMAGES + VIDEOS)
    if not glob.has_magic(given):
        raise FileNotFoundError(f"there is no file or folder {given}; correct the path")
    first = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  may be absolute
    return Path(*path.parts[:first]), [file for file in map(Path, matches) if not file.is_dir()]
