"""Checks before the first step of a training: data from which nothing right can be learnt.

They look at what the listing, the headers and a few masks show. `gald data verify` decodes all
files and uses the same sentences.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from gald.data.dataset import BaseDataset, SegmentationDataset
from gald.data.labels import UNKNOWN, VOID
from gald.data.loading.cache import CachedDataset
from gald.data.reading.files import file_size, read_bytes
from gald.data.reading.sample_error import SampleError
from gald.progress import in_order

T = TypeVar("T")

# Larger shares of the pixels that `void: rest` hides are faults: all of a split, and the single
# ones of a mask. Of masks that people paint, less than 0.3 % are single pixels.
_MOST_HIDDEN, _MOST_SINGLE = 0.9, 0.01
_FEW_FILES = 2000  # headers of this many images are read in a few seconds
_WITHOUT_BAR = 100  # files that are read so quickly that no progress is shown


def check_splits(splits: Mapping[str, BaseDataset]) -> None:
    """Refuse faulty data with the first fault found.

    Args:
        splits: the datasets that a training uses, by the names `train`, `val` and `test`.

    Raises:
        SampleError: one sentence with the file or split, the cause and the remedy.
    """
    first = next(iter(splits.values()))
    if fault := too_few_classes(first.class_names):
        raise SampleError(fault)
    if fault := next(_shared_files(splits), None):
        raise SampleError(fault)
    few = sum(map(len, splits.values())) <= _FEW_FILES
    for split, dataset in splits.items():
        if few and isinstance(dataset, SegmentationDataset):  # not one that was decoded before
            for _ in _each(dataset.check_header, len(dataset), f"check {split}"):
                pass
        ends = dict.fromkeys((0, len(dataset) - 1))
        for index in ends:
            dataset[index]
        source = _source(dataset)
        shares = []
        for index in ends:
            share, single = source.hidden(index)
            if fault := smoothed(source, index, single):
                raise SampleError(fault)
            shares.append(share)
        if fault := mostly_hidden(source, split, min(shares), "first and last masks"):
            raise SampleError(fault)
        if fault := unlearnable(split, dataset, _classes_in(dataset)):
            raise SampleError(fault)


def too_few_classes(class_names: Sequence[str]) -> str | None:
    """Return the message about a list of fewer than two classes."""
    if len(class_names) > 1:
        return None
    return (
        f"the data has one class ({', '.join(class_names)}), so any network scores mIoU 100; list "
        "everything else as a second class, for example background, instead of void"
    )


def unlearnable(split: str, dataset: BaseDataset, found: Sequence[int]) -> str | None:
    """Return the message about a split with labels of fewer than two classes.

    Args:
        split: name of the split.
        dataset: its samples.
        found: train ids of the classes that occur.
    """
    if len(found) > 1:
        return None
    source = _source(dataset)
    place = f" at {source.root}" if isinstance(source, SegmentationDataset) else ""
    images = "image" if len(dataset) == 1 else f"{len(dataset)} images"
    if not found:
        return (
            f"{split}{place} has no labelled pixel: all masks of its {images} are void; correct "
            "the masks or the list of labels"
        )
    return (
        f"{split}{place} has labels of one class only ({dataset.class_names[found[0]]}) in its "
        f"{images}, so a network that always answers it scores mIoU 100; add images with other "
        "classes, or correct the list of labels"
    )


def mostly_hidden(dataset: BaseDataset, split: str, share: float, where: str) -> str | None:
    """Return the message about `void: rest` if it hides most pixels.

    Args:
        dataset: samples of the split.
        split: its name.
        share: hidden fraction of the pixels.
        where: the masks that have it.
    """
    if share <= _MOST_HIDDEN:
        return None
    return (
        f"void: rest of {_list_of(dataset)} hides {100 * share:.0f} % of the pixels in the {where} "
        f"of {split}, more than {100 * _MOST_HIDDEN:.0f} %; if the masks went through jpg or a "
        "smooth resizing, export them again as png, otherwise list the hidden labels under void"
    )


def smoothed(dataset: BaseDataset, index: int, single: float) -> str | None:
    """Return the message about a mask that went through jpg or a smooth resizing.

    Args:
        dataset: samples of the split.
        index: of the mask.
        single: fraction of its pixels that `void: rest` hides and that differ from all neighbours.
    """
    if single <= _MOST_SINGLE:
        return None
    name = dataset.image_name(index)
    mask = dataset.samples[index].mask if isinstance(dataset, SegmentationDataset) else name
    return (
        f"mask {mask} has {100 * single:.0f} % single pixels with labels that only void: rest of "
        f"{_list_of(dataset)} covers, more than {100 * _MOST_SINGLE:.0f} %, as jpg and smooth "
        "resizing leave them; export the mask again as png, or list these labels under void"
    )


def _list_of(dataset: BaseDataset) -> str:
    return str(getattr(getattr(dataset, "classes", None), "path", "the list of classes"))


def same_picture(split: str, image: Path | str, other_split: str, other: Path | str) -> str:
    """Return the message about one picture in two splits."""
    return (
        f"image {image} of {split} and image {other} of {other_split} are the same picture; "
        f"remove one of them, because a network is not tested on what it has seen"
    )


def are_disjoint(dataset: BaseDataset, other: BaseDataset) -> bool:
    """Return whether two datasets should share no image: not for `train+val` and `val`."""
    parts = [set(str(getattr(d, "split", id(d))).split("+")) for d in (dataset, other)]
    return not parts[0] & parts[1]


def _source(dataset: BaseDataset) -> BaseDataset:
    return dataset.source if isinstance(dataset, CachedDataset) else dataset


def _classes_in(dataset: BaseDataset) -> list[int]:
    """Return the first train ids that occur, at most those of the mask with the second class."""
    found: set[int] = set()
    with closing(_each(partial(_train_ids, dataset), len(dataset), "look for labels")) as masks:
        for train_ids in masks:
            found |= train_ids
            if len(found) > 1:
                break
    return sorted(found)


def _train_ids(dataset: BaseDataset, index: int) -> set[int]:
    labels, lut = dataset.labels(index)
    found = set(np.unique(cv2.LUT(labels, lut)).tolist())
    if UNKNOWN in found:
        raise SampleError(dataset.unknown_label(index))
    return found - {VOID}


def _each(work: Callable[[int], T], count: int, title: str) -> Generator[T]:
    """Call a function for each index, after the first ones on several threads with a bar."""
    first = min(_WITHOUT_BAR, count)
    yield from map(work, range(first))
    if first < count:
        yield from in_order(work, range(first, count), title)


def _shared_files(splits: Mapping[str, BaseDataset]) -> Iterator[str]:
    """Find images of two splits that are the same file, or files with the same bytes.

    Of a large dataset only files with the same name are compared.
    """
    sources = ((name, _source(dataset)) for name, dataset in splits.items())
    files = {name: d for name, d in sources if isinstance(d, SegmentationDataset)}
    few = sum(len(dataset) for dataset in files.values()) <= _FEW_FILES
    for (a, one), (b, two) in combinations(files.items(), 2):
        if not are_disjoint(one, two):
            continue
        alike: dict[object, list[Path]] = defaultdict(list)
        for sample in one.samples:
            for key in _keys(sample.image, few):
                alike[key].append(sample.image)
        for sample in two.samples:
            for image in {i for key in _keys(sample.image, few) for i in alike.get(key, ())}:
                if _is_same(image, sample.image):
                    yield same_picture(a, image, b, sample.image)


def _keys(image: Path, few: bool) -> tuple[int | str, str]:
    """Return what two paths of the same picture have in common: one of these."""
    return file_size(image) if few else image.name, os.path.realpath(image)


def _is_same(image: Path, other: Path) -> bool:
    return file_size(image) == file_size(other) and _digest(image) == _digest(other)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(read_bytes(path)).digest()
