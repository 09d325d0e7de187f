"""What a dataset is: scenes that show their pixels late, so that a loader decodes what it needs."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from gald.data.downloads import Download
from gald.data.labels import UNKNOWN, label_lut, label_ranges
from gald.data.reading.files import (
    SampleError,
    check_sizes,
    fingerprint,
    is_dir,
    open_image,
    open_labels,
)
from gald.data.reading.png import LazyArray

Item = dict[str, Any]
IDENTITY_LUT = np.arange(256, dtype=np.uint8)  # the table of labels that are train ids


class RawSample(NamedTuple):
    """One scene as it is stored.

    Attributes:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8, stored labels.
        table: (256,) uint8 that maps a stored label to its train id, 255 for void, 254 for unknown.
    """

    image: np.ndarray
    labels: np.ndarray
    lut: np.ndarray


class LazySample(NamedTuple):
    """The same of a scene that is decoded when it is cut, where that saves work."""

    image: LazyArray
    labels: LazyArray
    lut: np.ndarray


class BaseDataset(Dataset, ABC):
    """Labelled scenes, by index.

    `open` gives what is stored, for a loader that crops before it maps labels, `pixels` the same
    decoded, and `scenes[i]` a whole item.

    Shape:
        image: (3, H, W) uint8
        mask: (H, W) uint8, void 255
    """

    class_names: ClassVar[tuple[str, ...]]
    palette: ClassVar[tuple[tuple[int, int, int], ...]]

    @abstractmethod
    def __len__(self) -> int:
        """Number of scenes."""

    @abstractmethod
    def image_name(self, index: int) -> str:
        """What a scene is called in pictures and predictions."""

    @abstractmethod
    def pixels(self, index: int) -> RawSample:
        """One scene as it is stored."""

    @abstractmethod
    def fingerprint(self) -> str:
        """What changes whenever a pixel or a train id may have: the key of what is derived."""

    def open(self, index: int) -> LazySample:
        """One scene as it is stored, for one who needs a part of it."""
        return LazySample(*self.pixels(index))

    def labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Stored labels and table of one scene, without the image where that saves work."""
        return self.pixels(index)[1:]

    def cache_name(self) -> str:
        """What files derived from these scenes are called: class, split and fingerprint."""
        parts = (type(self).__name__.lower(), getattr(self, "split", ""), self.fingerprint()[:16])
        return "-".join(part for part in parts if part)

    def __getitem__(self, index: int) -> Item:
        image, labels, lut = self.pixels(index)
        return self.item(index, image, cv2.LUT(labels, lut))

    def item(self, index: int, image: np.ndarray, mask: np.ndarray) -> Item:
        """Pack what became of a scene's pixels, if all its labels are known."""
        if (mask == UNKNOWN).any():
            raise SampleError(self.unknown_label(index))
        return {
            "image": torch.from_numpy(np.stack(cv2.split(image))),  # faster than a transposed copy
            "mask": torch.from_numpy(np.ascontiguousarray(mask)),
            "name": self.image_name(index),
        }

    def unknown_label(self, index: int) -> str:
        """Say which label of a scene has no train id."""
        _, labels, lut = self.pixels(index)
        alien = labels[cv2.LUT(labels, lut) == UNKNOWN][0]
        name = self.image_name(index)
        return f"{name} has label {alien}, which has no train id; correct the mask"


class Sample(NamedTuple):
    """The two files of a scene and its name."""

    name: str
    image: Path
    mask: Path


class SegmentationDataset(BaseDataset):
    """Scenes that are files. A dataset states the facts below and writes `list_samples`.

    Args:
        root: folder of the dataset, as its owners lay it out.
        split: one of `splits`, or several joined: `train+val`.

    Raises:
        ValueError: there is no such split.
        FileNotFoundError: a folder is missing.
        SampleError: a file is missing or makes no pair.

    Attributes:
        title: the dataset's name in messages.
        name: its name in `data=NAME`, and of its folder below `GALD_DATA`.
        url: web page of the dataset, or its archive.
        licence: its terms in one line.
        downloads: files that `gald data prepare` downloads, all with a published checksum.
        required: paths in `root` that a complete dataset has, as groups of alternatives; with all
            of them `gald data prepare` leaves the folder alone.
        instructions: what `gald data prepare` prints if there are no `downloads`; `{title}`,
            `{licence}`, `{url}`, `{root}`, `{quoted_root}` (for a shell), `{class}` and
            `{docstring}` are filled in.
        class_names: by train id.
        palette: RGB colours by train id.
        label_map: stored label -> train id, or 255 for void; any other label is an error.
        splits: names of the splits.
        published_counts: number of images of each split as published; several numbers where sources
            differ.
        submission_splits: splits that `gald submit` predicts, the usual one first.
        samples: the scenes, in order.
    """

    title: ClassVar[str]
    name: ClassVar[str]
    url: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    downloads: ClassVar[tuple[Download, ...]] = ()
    required: ClassVar[tuple[tuple[str, ...], ...]] = ()
    instructions: ClassVar[str] = """\
{title} is not fetched by gald: its class names no downloads
licence: {licence}
steps:
  1. get it from {url}
  2. put it into {quoted_root} in the layout that {class} describes:

{docstring}
"""
    label_map: Mapping[int, int]
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {}
    submission_splits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root).expanduser()
        self.split = split
        parts = split.split("+")
        for part in parts:
            if part not in self.splits or parts.count(part) > 1:
                raise ValueError(
                    f"split ({split}) is unknown; choose one of {', '.join(self.splits)}, or join "
                    f"different ones, as {'+'.join(self.splits[:2])}"
                )
        self.samples: list[Sample] = []
        for part in parts:
            found = self.list_samples(part)
            if not found:
                raise SampleError(
                    f"{part} of {self.title} at {self.root} has no images; put them there or "
                    f"choose another split than {split}"
                )
            self.samples += found
        self.lut = label_lut(self.label_map)

    @abstractmethod
    def list_samples(self, split: str) -> list[Sample]:
        """List the scenes of one part, sorted or in the order of the official list."""

    @classmethod
    def submission_images(cls, root: str | Path, split: str) -> dict[str, Path]:
        """The images of a submission, by the names of their label maps there; needs no labels.

        Raises:
            ValueError: there is no submission of such a split.
            FileNotFoundError: the folder of the images is missing.
            SampleError: it holds no image, or two of one name.
        """
        if split not in cls.submission_splits:
            raise ValueError(
                f"{cls.title} has no submission of the split {split!r}; choose one of "
                f"{', '.join(cls.submission_splits)}"
            )
        dataset = cls.__new__(cls)  # without its scenes: they would ask for labels
        dataset.root = Path(root).expanduser()
        images = dataset.list_images(split)
        if not images:
            raise SampleError(
                f"{split} of {cls.title} at {dataset.root} has no images; put them there or "
                f"choose another data root"
            )
        return {f"{name}.png": path for name, path in sorted(images.items())}

    @classmethod
    def submission_name(cls, file: str) -> str:
        """Which of `submission_images` a file in a submission stands for: that of its name."""
        return file

    def list_images(self, split: str) -> dict[str, Path]:
        """List the images of a split in `submission_splits` by name; masks need not be there."""
        raise NotImplementedError

    def folder(self, *places: str) -> Path:
        """The first of some places below `root` that is a folder, or lies in a zip, or an error."""
        for place in places:
            if is_dir(self.root / place):
                return self.root / place
        raise self.missing(" or ".join(places))

    def missing(self, places: str) -> FileNotFoundError:
        """The error that says where the data was looked for, and how to get it."""
        return FileNotFoundError(
            f"no {self.title} at {self.root} (looked for {places} in it); set data.root, or "
            f"GALD_DATA to the folder above {self.name}/, or run gald data prepare {self.name}"
        )

    def __len__(self) -> int:
        return len(self.samples)

    def image_name(self, index: int) -> str:
        """Stem of the image file, unless the dataset says otherwise."""
        return self.samples[index].name

    def open_labels(self, sample: Sample) -> LazyArray:
        """Open the stored labels (H, W) uint8 of one scene; a grey png unless overridden."""
        return open_labels(sample.mask)

    def read_labels(self, sample: Sample) -> np.ndarray:
        """Decode the stored labels (H, W) uint8 of one scene."""
        return np.asarray(self.open_labels(sample))

    def open(self, index: int) -> LazySample:
        """Open image and labels, which must cover the same pixels."""
        sample = self.samples[index]
        image, labels = open_image(sample.image), self.open_labels(sample)
        check_sizes(image, labels, sample.image, sample.mask)
        return LazySample(image, labels, self.lut)

    def pixels(self, index: int) -> RawSample:
        """Decode image and labels, which must cover the same pixels."""
        image, labels, lut = self.open(index)
        return RawSample(np.asarray(image), np.asarray(labels), lut)

    def labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Decode the labels alone."""
        return self.read_labels(self.samples[index]), self.lut

    def fingerprint(self) -> str:
        """Hash of the label map and of every file's name, size and time."""
        digest = hashlib.sha256(f"{type(self).__name__} {sorted(self.label_map.items())}".encode())
        for name, *files in self.samples:
            digest.update(f"\n{name} {' '.join(fingerprint(file) for file in files)}".encode())
        return digest.hexdigest()

    def unknown_label(self, index: int) -> str:
        """Say which label of which file has no train id."""
        sample = self.samples[index]
        labels = self.read_labels(sample)
        alien = labels[cv2.LUT(labels, self.lut) == UNKNOWN][0]
        return (
            f"mask {sample.mask} has label {alien}, known are {label_ranges(self.label_map)}; "
            "correct the mask or add the label to the dataset's label_map"
        )
