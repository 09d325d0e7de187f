"""Submission to a test server: one label map per image, checked and packed in a zip."""

import zipfile
from pathlib import Path

import cv2
import numpy as np

from gald.data.dataset import SegmentationDataset
from gald.data.labels import VOID, label_ranges, stored_labels
from gald.data.reading.complete import read_head
from gald.data.reading.files import open_archive
from gald.data.reading.header import read_size
from gald.data.reading.mask import read_labels, require_8_bits
from gald.data.reading.sample_error import SampleError
from gald.errors import disk_remedy
from gald.progress import in_order
from gald.run.atomic import atomic_file


class Submission:
    """Label maps that a server expects for one split, as png with the dataset's label ids.

    The docstrings of the datasets describe each server and cite sources: `Cityscapes`, `ADE20K`,
    `CocoStuff10k`.

    Args:
        dataset: class of the dataset.
        root: folder of the dataset; ground truth is not needed.
        split: one of `dataset.submission_splits`.
        subset: accept any number of images, not only the published one.

    Raises:
        ValueError: there is no such split, or images are missing.
        FileNotFoundError: the folder of the images is missing.

    Attributes:
        images: image files, keyed by the name of their png.
        labels: (K,) uint8, the server's label of each train id.
    """

    def __init__(
        self, dataset: type[SegmentationDataset], root: str | Path, split: str, subset: bool = False
    ) -> None:
        self.dataset = dataset
        self.split = split
        self.images = dataset.submission_images(root, split)
        published = dataset.published_counts.get(split)
        if published and len(self.images) not in published and not subset:
            raise ValueError(
                f"{split} of {dataset.title} at {root} has {len(self.images)} images, but "
                f"{published[0]} are published; restore them, or use only these with --subset"
            )
        self.labels = stored_labels(dataset.label_map)[: len(dataset.class_names)]
        self._known = np.zeros(256, bool)
        self._known[self.labels] = True

    def encode(self, prediction: np.ndarray) -> bytes:
        """Encode a prediction as the png that the server reads.

        Args:
            prediction: (H, W) uint8 train ids.

        Raises:
            ValueError: pixels have no label.
        """
        if void := np.count_nonzero(prediction == VOID):
            raise ValueError(
                f"{void} of {prediction.size} pixels have no label, because their scores are not "
                "numbers (NaN); use another network, or inference.precision=null"
            )
        encoded, data = cv2.imencode(".png", self.labels[prediction])
        assert encoded
        return data.tobytes()

    def check(self, place: Path) -> None:
        """Check that a zip or a folder contains exactly one valid label map per image.

        Raises:
            ValueError: a label map is missing, unexpected or invalid; names the first such file.
            FileNotFoundError: there is no such zip or folder.
        """
        file_of: dict[str, str] = {}
        for file in _files(place):
            name = self.dataset.submission_name(file)
            if name not in self.images:
                raise ValueError(
                    f"{place} contains {file}, which matches none of the {len(self.images)} "
                    f"images of {self.split}; remove it"
                )
            if name in file_of:
                raise ValueError(
                    f"{place} contains {file_of[name]} and {file} for one image; remove one of them"
                )
            file_of[name] = file
        missing = sorted(self.images.keys() - file_of.keys())
        if missing:
            raise ValueError(
                f"{place} has {len(file_of)} of {len(self.images)} label maps, {missing[0]} is "
                "missing; predict all images again"
            )
        names = list(self.images)

        def check(index: int) -> None:
            self._check_map(place / file_of[names[index]], self.images[names[index]])

        for _ in in_order(check, range(len(names)), "checking"):
            pass

    def _check_map(self, path: Path, image: Path) -> None:
        require_8_bits(path)
        labels = read_labels(path)
        height, width = _size(image)
        if labels.shape != (height, width):
            raise ValueError(
                f"{path} is {labels.shape[1]}x{labels.shape[0]} but its image is {width}x{height}; "
                "predict at the size of the image"
            )
        counts = np.bincount(labels.ravel(), minlength=256)
        unknown = np.flatnonzero(counts * ~self._known)
        if len(unknown):
            known = label_ranges(dict.fromkeys(self.labels.tolist(), 0))
            raise ValueError(
                f"{path} has label {unknown[0]}, which is not a class of {self.dataset.title}; "
                f"write the dataset's label ids ({known}), not train ids"
            )

    def pack(self, folder: Path, archive: Path) -> None:
        """Pack a checked folder into a zip, which appears complete or not at all.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        try:
            with atomic_file(archive) as partial:
                with zipfile.ZipFile(partial, "w") as packed:  # stored: png is already compressed
                    for name in self.images:
                        # Without the time of the file, so that equal label maps give equal zips.
                        member = zipfile.ZipInfo(name)
                        member.external_attr = 0o644 << 16
                        packed.writestr(member, (folder / name).read_bytes())
                with zipfile.ZipFile(partial) as packed:
                    damaged = packed.testzip()
                if damaged:
                    raise OSError(f"{damaged} in it cannot be read back")
        except OSError as error:
            raise OSError(
                f"cannot write {archive} ({error.strerror or error}); {disk_remedy(error)} and "
                "repeat the command, nothing is predicted twice"
            ) from error


def _files(place: Path) -> list[str]:
    """List the names of all files below a folder or in a zip, sorted."""
    if place.is_dir():
        return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    if not place.is_file():
        raise FileNotFoundError(f"there is no file {place}; name the zip to check")
    if place.suffix.lower() != ".zip":
        raise ValueError(f"{place} does not end in .zip; rename it if it is a zip")
    members = open_archive(place).infolist()
    return sorted(info.filename for info in members if not info.is_dir())


def _size(path: Path) -> tuple[int, int]:
    """Return height and width of an image, from its header only where that is possible."""
    size = read_size(read_head(path))
    if size is None:
        raise SampleError(f"image {path} cannot be read; download it again")
    return size
