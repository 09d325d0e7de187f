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
    where two files would otherwise share a name, or the frames of a video a folder with others. So
    no prediction overwrites another.

    Args:
        inputs: files, folders (searched recursively), patterns, or `-` for a list on stdin.
        target: output folder; files below it are skipped when a folder is searched.

    Raises:
        FileNotFoundError: an input does not exist, or a folder or pattern has no image or video.
        ValueError: stdin is no list of files, or a pattern has `..` after its first `*`.
    """
    lines = (x for given in inputs for x in (_stdin() if given in ("-", "/dev/stdin") else [given]))
    files: dict[Path, None] = {}
    roots: list[str] = []
    target = _absolute(target)
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
    names = _names([path.relative_to(base) for path in files])
    return [InputFile(path, name.as_posix()) for path, name in zip(files, names, strict=True)]


def _names(paths: Sequence[Path]) -> list[Path]:
    """Return a name for each path: without its suffix, unless an output would meet another's."""
    names = [path.with_suffix("") for path in paths]
    folders = {folder for path in paths for folder in path.parents}
    while True:
        counts = Counter(names)  # x.jpg can meet the name of x.jpg.png
        meets = [
            name != path and (counts[name] > 1 or not folders.isdisjoint(_outputs(path, name)))
            for path, name in zip(paths, names, strict=True)
        ]
        if not any(meets):
            return names
        names = [p if meet else n for p, n, meet in zip(paths, names, meets, strict=True)]


def _outputs(path: Path, name: Path) -> list[Path]:
    """Return what the outputs of a file can be called; those of a video are a folder and an mp4."""
    endings = ("", ".mp4") if path.suffix.lower() in VIDEOS else (".png", ".npz")
    return [name.with_name(f"{name.name}{ending}") for ending in endings]


def _stdin() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if b"\0" in line:
            raise ValueError(
                "stdin must be a list with a file per line, but it is a file itself; name the file "
                "in place of -"
            )
        if text := os.fsdecode(line).strip():
            yield text


def _absolute(path: Path) -> Path:
    """Return an absolute path without `..`, which would lead names out of the output folder."""
    path = path.absolute()
    if ".." not in path.parts:
        return path
    return path.resolve() if path.name == ".." else path.parent.resolve() / path.name


def _expand(given: str) -> tuple[Path, list[Path]]:
    """Return the root of an input and its files; the root of a single file is the file itself."""
    path = Path(given).expanduser()
    if path.is_file() or path.is_dir():
        root = _absolute(path)
        return root, [root] if root.is_file() else list_files(root, IMAGES + VIDEOS)
    if not glob.has_magic(given):
        raise FileNotFoundError(f"there is no file or folder {given}; correct the path")
    path = path.absolute()
    first = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    if ".." in path.parts[first:]:
        raise ValueError(f"{given} has .. after its first pattern; write it without ..")
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  may be absolute
    files = [_absolute(file) for file in map(Path, matches) if not file.is_dir()]
    return _absolute(Path(*path.parts[:first])), files
