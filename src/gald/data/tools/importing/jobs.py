"""What the readers of annotations hand to the writer, and checks that they share."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np

from gald.data.folder_layout import NAMES
from gald.data.reading.image import refuse_large
from gald.data.reading.listing import list_files
from gald.data.reading.sample_error import SampleError

UNLABELLED = 0  # label of pixels without annotation
MAX_CLASSES = 253  # labels 1..253; a list of classes has at most 254 entries
BACKGROUND = "background"


@dataclass(frozen=True)
class Opened:
    """Content of one annotated image.

    Attributes:
        picture: file of the image, or its bytes if they are embedded.
        size: (width, height) in the annotations; None if they do not say.
        upright: whether an orientation tag is certainly applied to the annotations; None if only
            the size can tell.
        draw: function of height and width that returns labels (H, W) uint8.
    """

    picture: Path | bytes
    size: tuple[int, int] | None
    upright: bool | None
    draw: Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Job:
    """One image to write.

    Attributes:
        split: `train`, `val` or `test`.
        name: path of the image and its mask in the split, without an ending.
        where: the image in messages.
        open: reads the annotations; raises `SampleError` if they are not valid.
    """

    split: str
    name: str
    where: str
    open: Callable[[], Opened]


@dataclass(frozen=True)
class Import:
    """Images and classes that were found.

    Attributes:
        jobs: the images, sorted by split and name.
        labels: label in the masks of each class, in the order of the scores.
        problems: what is left out, one sentence each.
        notes: what the user should know, one sentence each.
    """

    jobs: list[Job]
    labels: dict[str, int]
    problems: list[str]
    notes: list[str]


def assign_labels(names: list[str], unlabelled: str, folder: Path) -> dict[str, int]:
    """Return the label of each class; background is 0 if unlabelled pixels are background.

    Raises:
        ValueError: there are no classes, or too many.
    """
    own = [name for name in names if not (unlabelled == BACKGROUND and is_background(name))]
    if not own:
        raise ValueError(f"{folder} has no labelled object, so there are no classes to train")
    if len(own) > MAX_CLASSES:
        raise ValueError(
            f"{folder} has {len(own)} classes, but a mask can store {MAX_CLASSES} beside the "
            "unlabelled pixels; merge some of them"
        )
    labels = {name: label for label, name in enumerate(own, 1)}
    if unlabelled != BACKGROUND:
        return labels
    given = [name for name in names if is_background(name)]
    return dict.fromkeys(given or [BACKGROUND], UNLABELLED) | labels


def is_background(name: str) -> bool:
    """Return whether a class is the background; labelme calls it `_background_`."""
    return name.strip("_").lower() == BACKGROUND


def check_class_name(name: object, where: str) -> str:
    """Return the name of a class if it can be in `classes.yaml`.

    Raises:
        SampleError: it is not one line of text.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or "${" in name:
        raise SampleError(
            f"{where} has the name {name!r}; a class needs a name of one line of text without ${{"
        )
    return name.strip()


def check_points(points: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """Return points (N, 2) float64 that are in the image, or at most one image size outside.

    Raises:
        SampleError: they are not numbers, or far outside.
    """
    try:
        array = np.asarray(points, np.float64)
        array = array.reshape(-1, 2) if array.ndim == 1 else array
        if array.ndim != 2 or array.shape[1] != 2:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise SampleError(f"{where} has points that are not pairs of numbers") from None
    limits = np.array(size, np.float64)
    near = ((array >= -limits) & (array <= 2 * limits)).all(axis=1)  # False for nan
    if not near.all():
        far = array[~near][0]
        raise SampleError(
            f"{where} has the point {far[0]:g}, {far[1]:g}, far outside of the {size[0]}x{size[1]} "
            "image; correct it"
        )
    return array


def check_size(width: Any, height: Any, where: str) -> tuple[int, int] | None:
    """Return the size in the annotations; None if there is none.

    Raises:
        SampleError: it is not a pair of positive numbers.
    """
    if width is None and height is None:
        return None
    for value in (width, height):
        number = isinstance(value, int | float) and math.isfinite(value) and value == int(value)
        if not number or value < 1:
            raise SampleError(f"{where} has the size {width!r}x{height!r}; correct the json")
    refuse_large((int(height), int(width)), where)
    return int(width), int(height)


def inside(base: Path, given: str, folder: Path) -> Path | None:
    """Return the path of a file that a json names, or None if it leads out of the folder.

    Links in the folder are followed, because the user has made them.

    Args:
        base: folder to which the name is relative.
        given: the name in the json, also with the separators of Windows.
        folder: folder that the file must be in.
    """
    windows = PureWindowsPath(given)
    if windows.drive or windows.root or "\0" in given:
        return None
    path = Path(os.path.normpath(base / windows.as_posix()))
    whole, top = (os.path.normpath(p.absolute()) for p in (path, folder))
    return path if Path(whole).is_relative_to(top) else None


def json_files(folder: Path) -> list[Path]:
    """List the json files of a folder at any depth, without those that macOS writes beside them."""
    return [path for path in list_files(folder, (".json",)) if not path.name.startswith(".")]


def split_of(path: PurePath, words_of_name: bool) -> str | None:
    """Return the split that a json belongs to by the names of its folders, or its own.

    Args:
        path: path of the json in the folder.
        words_of_name: whether a word in its own name counts, e.g. `instances_train2017.json`.

    Raises:
        ValueError: its name has the words of two splits.
    """
    if words_of_name:
        words = set(re.findall("[a-z]+", path.stem.lower()))
        found = [split for split, names in NAMES.items() if words & set(names)]
        if len(found) > 1:
            raise ValueError(f"{path} could be {' or '.join(found)}; rename it")
        if found:
            return found[0]
    for part in reversed(path.parent.parts):
        for split, names in NAMES.items():
            if part.lower().rstrip("0123456789_-") in names:
                return split
    return None


def split_all(files: list[Path], folder: Path, words_of_name: bool) -> dict[Path, str]:
    """Return the split of each json; all are `train` if no name says more.

    Raises:
        ValueError: only some of them have a split.
    """
    found = {path: split_of(path.relative_to(folder), words_of_name) for path in files}
    if not any(found.values()):
        return dict.fromkeys(files, "train")
    if unclear := [path for path, split in found.items() if split is None]:
        other = next(path for path, split in found.items() if split)
        raise ValueError(
            f"{unclear[0]} is in no split, but {other} is in {found[other]}; move it into a folder "
            "named train, val or test"
        )
    return {path: split for path, split in found.items() if split}


def common_folder(files: Sequence[Path]) -> Path:
    """Return the deepest folder that has all files."""
    parents = [file.parent for file in files]
    top = parents[0] if parents else Path()
    while not all(parent.is_relative_to(top) for parent in parents):
        top = top.parent
    return top


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, e.g. `1 image` or `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
