"""Base classes of datasets: images and label maps that are decoded only where they are used."""

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
from gald.data.reading.files import fingerprint, is_dir
from gald.data.reading.header import UPRIGHT
from gald.data.reading.image import READING, image_header, open_photo
from gald.data.reading.mask import check_sizes, mask_header, open_labels
from gald.data.reading.orientation import mask_is_upright, upright
from gald.data.reading.png import LazyArray
from gald.data.reading.sample_error import SampleError

Item = dict[str, Any]
IDENTITY_LUT = np.arange(256, dtype=np.uint8)  # for stored labels that are train ids


class RawSample(NamedTuple):
    """Decoded image and stored labels of one sample.

    Attributes:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8, stored labels.
        lut: (256,) uint8 that maps a stored label to its train id, 255 for void, 254 for unknown.
    """

    image: np.ndarray
    labels: np.ndarray
    lut: np.ndarray


class LazySample(NamedTuple):
    """Like `RawSample`, but decoded on slicing where that saves work."""

    image: LazyArray
    labels: LazyArray
    lut: np.ndarray


class BaseDataset(Dataset, ABC):
    """Labelled images, by index.

    `dataset[i]` is a whole item. `pixels` returns the decoded image and the stored labels, and
    `open` the same for a loader that crops before it decodes and maps labels.

    Shape:
        image: (3, H, W) uint8
        mask: (H, W) uint8, void 255

    Attributes:
        title: the dataset's name in messages.
        url: web page of the dataset, or its archive.
        licence: its terms in one line.
    """

    title: ClassVar[str]
    url: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    class_names: ClassVar[tuple[str, ...]]
    palette: ClassVar[tuple[tuple[int, int, int], ...]]

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def image_name(self, index: int) -> str:
        """Return the name of a sample in figures and predictions."""

    def image_path(self, index: int) -> str:
        """Return the path of a sample, with `/`, in which `data.groups` finds the group."""
        return self.image_name(index)

    @abstractmethod
    def pixels(self, index: int) -> RawSample:
        """Decode one sample."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash that changes if a pixel or a train id may have changed: the key of derived files."""

    def open(self, index: int) -> LazySample:
        """Open one sample for slicing."""
        return LazySample(*self.pixels(index))

    def labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return stored labels and `lut` of one sample, without decoding the image if possible."""
        return self.pixels(index)[1:]

    def cache_name(self) -> str:
        """Return the name for files derived from this dataset: class, split and fingerprint."""
        parts = (type(self).__name__.lower(), getattr(self, "split", ""), self.fingerprint()[:16])
        return "-".join(part for part in parts if part)

    def __getitem__(self, index: int) -> Item:
        image, labels, lut = self.pixels(index)
        return self.item(index, image, cv2.LUT(labels, lut))

    def item(self, index: int, image: np.ndarray, mask: np.ndarray) -> Item:
        """Build the item of a sample from its transformed pixels.

        Raises:
            SampleError: a label has no train id.
        """
        if (mask == UNKNOWN).any():
            raise SampleError(self.unknown_label(index))
        return {
            "image": torch.from_numpy(np.stack(cv2.split(image))),  # faster than a transposed copy
            "mask": torch.from_numpy(np.ascontiguousarray(mask)),
            "name": self.image_name(index),
        }

    def hidden(self, index: int) -> tuple[float, float]:
        """Return the fraction of one mask that is void only because no list names its labels.

        Also return the fraction of single pixels among these, which differ from all neighbours.
        """
        return 0.0, 0.0

    def unknown_label(self, index: int) -> str:
        """Return the message about the label that has no train id."""
        _, labels, lut = self.pixels(index)
        label = labels[cv2.LUT(labels, lut) == UNKNOWN][0]
        name = self.image_name(index)
        return f"{name} has label {label}, which has no train id; correct the mask"


class Sample(NamedTuple):
    """Name and files of one sample."""

    name: str
    image: Path
    mask: Path


class SegmentationDataset(BaseDataset):
    """Dataset of image and mask files. A subclass sets the class attributes and `list_samples`.

    Args:
        root: folder of the dataset, in the layout of its owners.
        split: one of `splits`, or several joined by `+`, e.g. `train+val`.

    Raises:
        ValueError: the split is unknown.
        FileNotFoundError: a folder is missing.
        SampleError: an image or a mask is missing.

    Attributes:
        name: its name in `data=NAME`, and the name of its folder below `GALD_DATA`.
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
        published_counts: published number of images of each split; several numbers where sources
            differ.
        submission_splits: splits that `gald submit` predicts, the default first.
        follows_tags: whether photos are turned upright by their EXIF orientation, and masks with
            them; False where the owners' masks follow the stored pixels, whatever the tags.
        mask_depth: most bits per value of a mask that is as its owners publish it.
        samples: names and files, in order.
    """

    name: ClassVar[str]
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
    follows_tags: ClassVar[bool] = True
    mask_depth: ClassVar[int] = 8

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root).expanduser()
        self.split = split
        parts = split.split("+")
        for part in parts:
            if part not in self.splits or parts.count(part) > 1:
                raise ValueError(
                    f"split ({split}) is unknown; choose one of {', '.join(self.splits)}, or join "
                    f"different ones, e.g. {'+'.join(self.splits[:2])}"
                )
        self.samples: list[Sample] = []
        for part in parts:
            samples = self.list_samples(part)
            if not samples:
                raise SampleError(
                    f"{part} of {self.title} at {self.root} has no images; put them there or "
                    f"choose another split than {split}"
                )
            self.samples += samples
        self.lut = label_lut(self.label_map)

    @abstractmethod
    def list_samples(self, split: str) -> list[Sample]:
        """List the samples of one split, sorted or in the order of the official list."""

    @classmethod
    def submission_images(cls, root: str | Path, split: str) -> dict[str, Path]:
        """List the images of a submission by the file names of their predictions; needs no labels.

        Raises:
            ValueError: the split is not in `submission_splits`.
            FileNotFoundError: the folder of the images is missing.
            SampleError: the folder has no image, or two with the same name.
        """
        if split not in cls.submission_splits:
            raise ValueError(
                f"{cls.title} has no submission of the split {split!r}; choose one of "
                f"{', '.join(cls.submission_splits)}"
            )
        dataset = cls.__new__(cls)  # __init__ would require masks
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
        """Return the key in `submission_images` of a file in a submission; by default its name."""
        return file

    def list_images(self, split: str) -> dict[str, Path]:
        """List the images of a split in `submission_splits` by name; needs no masks."""
        raise NotImplementedError

    def folder(self, *places: str) -> Path:
        """Return the first existing folder of several places in `root`, also inside of a zip.

        Raises:
            FileNotFoundError: none of them exists.
        """
        for place in places:
            if is_dir(self.root / place):
                return self.root / place
        raise self.missing(" or ".join(places))

    def missing(self, places: str) -> FileNotFoundError:
        """Build the error that lists the searched places and how to get the data."""
        return FileNotFoundError(
            f"no {self.title} at {self.root} (looked for {places} in it); set data.root, or "
            f"GALD_DATA to the folder above {self.name}/, or run gald data prepare {self.name}"
        )

    def __len__(self) -> int:
        return len(self.samples)

    def image_name(self, index: int) -> str:
        """Return the stem of the image file, unless a subclass names samples differently."""
        return self.samples[index].name

    def image_path(self, index: int) -> str:
        """Return the path of the image file, relative to `root` where it is inside."""
        image = self.samples[index].image
        inside = image.is_relative_to(self.root)
        return (image.relative_to(self.root) if inside else image).as_posix()

    def open_labels(self, sample: Sample) -> LazyArray:
        """Open the stored labels (H, W) uint8 of one sample; a grey png unless overridden."""
        return open_labels(sample.mask)

    def read_labels(self, sample: Sample) -> np.ndarray:
        """Decode the stored labels (H, W) uint8 of one sample."""
        return np.asarray(self.open_labels(sample))

    def open(self, index: int) -> LazySample:
        """Open image and labels, which must have the same size.

        A photo with an orientation tag is turned upright, see `follows_tags`. If the size of the
        mask shows that it follows the stored pixels, it is turned too.
        """
        sample = self.samples[index]
        (image, orientation), labels = open_photo(sample.image), self.open_labels(sample)
        if orientation != UPRIGHT and self.follows_tags:
            turned = mask_is_upright(
                image.shape[:2], labels.shape, orientation, sample.image, sample.mask
            )
            image = upright(np.asarray(image), orientation)
            labels = labels if turned else upright(np.asarray(labels), orientation)
        check_sizes(image, labels, sample.image, sample.mask)
        return LazySample(image, labels, self.lut)

    def check_header(self, index: int) -> None:
        """Check one sample by the headers of its files; decode it only if they look wrong.

        Raises:
            SampleError: a file is missing, truncated or too deep, or the sizes do not fit.
        """
        sample = self.samples[index]
        image, mask = image_header(sample.image), mask_header(sample.mask)
        if image is None or mask is None:
            return
        same_size = (image.height, image.width) == (mask.height, mask.width)
        if not same_size or image.orientation != UPRIGHT or mask.depth > self.mask_depth:
            self.pixels(index)

    def pixels(self, index: int) -> RawSample:
        """Decode image and labels, which must have the same size."""
        image, labels, lut = self.open(index)
        return RawSample(np.asarray(image), np.asarray(labels), lut)

    def labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Decode only the labels, in stored order."""
        return self.read_labels(self.samples[index]), self.lut

    def fingerprint(self) -> str:
        """Hash of the label map, of every file's name, size and times, and of how they are read."""
        facts = (type(self).__name__, sorted(self.label_map.items()), READING, self.follows_tags)
        digest = hashlib.sha256(" ".join(map(str, facts)).encode())
        for name, *files in self.samples:
            digest.update(f"\n{name} {' '.join(fingerprint(file) for file in files)}".encode())
        return digest.hexdigest()

    def unknown_label(self, index: int) -> str:
        """Return the message about the file and the label that has no train id."""
        sample = self.samples[index]
        labels = self.read_labels(sample)
        label = labels[cv2.LUT(labels, self.lut) == UNKNOWN][0]
        return (
            f"mask {sample.mask} has label {label}, known are {label_ranges(self.label_map)}; "
            "correct the mask or add the label to the dataset's label_map"
        )
