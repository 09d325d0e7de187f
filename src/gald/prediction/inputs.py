"""Which pictures and videos a command line means, and what their predictions are called."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gald.data.reading.files import IMAGE_SUFFIXES, list_files

IMAGES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


class InputFile(NamedTuple):
    """A picture or a video, and the path of its predictions below any folder, without a suffix."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the suffix is one of videos."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(inputs: Sequence[str], target: Path) -> list[InputFile]:
    """List the files that inputs mean, each once, in the order given.

    Names keep the folders below the deepest one that holds all inputs, and the suffix where two
    files would share a name without it: no prediction overwrites another.

    Args:
        inputs: files, folders (with all below them), patterns, or `-` for a list on stdin.
        target: where predictions go; what lies there is no input of a folder.

    Raises:
        FileNotFoundError: an input is not there, or a folder or pattern holds nothing to predict.
    """
    lines = (x for given in inputs for x in (_stdin() if given == "-" else [given]))
    found: dict[Path, None] = {}
    roots: list[str] = []
    for given in lines:
        root, paths = _expand(given)
        kept = [path for path in paths if path == root or not path.is_relative_to(target)]
        if not kept:
            raise FileNotFoundError(
                f"{given} holds nothing to predict; give pictures ({', '.join(IMAGES)}) or videos "
                f"({', '.join(VIDEOS)})"
            )
        roots.append(str(root.parent if kept == [root] else root))
        found |= dict.fromkeys(kept)
    if not found:
        raise FileNotFoundError("the list on stdin is empty; give one file a line")
    base = Path(os.path.commonpath(roots))
    places = [path.relative_to(base) for path in found]
    often = Counter(place.with_suffix("") for place in places)
    return [
        InputFile(
            path, (place if often[place.with_suffix("")] > 1 else place.with_suffix("")).as_posix()
        )
        for path, place in zip(found, places, strict=True)
    ]


def _stdin() -> Iterator[str]:
    return (line.strip() for line in sys.stdin if line.strip())


def _expand(given: str) -> tuple[Path, list[Path]]:
    """The folder that an input means, and its files; a file is its own folder."""
    path = Path(given).expanduser().absolute()
    if path.is_file():
        return path, [path]
    if path.is_dir():
        return path, list_files(path, IMAGES + VIDEOS)
    if not glob.has_magic(given):
        raise FileNotFoundError(f"there is no file or folder {given}; correct the path")
    plain = [part for part in path.parts]
    first = next(i for i, part in enumerate(plain) if glob.has_magic(part))
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  patterns may be absolute
    matches = (Path(match) for match in found)
    return Path(*plain[:first]), [match for match in matches if match.is_file()]
