"""What a test server is sent: one label map for each image, checked before it is packed."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gald.data.dataset import SegmentationDataset
from gald.data.labels import label_ranges, stored_labels
from gald.data.reading.files import SampleError, read_bytes, read_labels
from gald.progress import in_order


class Submission:
    """The label maps that a server expects for one split, as png with the labels of the dataset.

    What is known of each server, and from where, stands at the dataset: `Cityscapes`, `ADE20K`,
    `CocoStuff10k`.

    Args:
        dataset: the dataset's class.
        root: its folder; labels need not be there.
        split: one of `dataset.submission_splits`.
        subset: any number of images is right, not only the published one.

    Raises:
        ValueError: there is no such split, or images are missing.
        FileNotFoundError: the folder of the images is missing.

    Attributes:
        images: image files by the name of their png.
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
                f"{split} of {dataset.title} at {root} has {len(self.images)} images, published "
                f"are {published[0]}; restore the others, or take these alone with --subset"
            )
        self.labels = stored_labels(dataset.label_map)[: len(dataset.class_names)]
        self._known = np.zeros(256, bool)
        self._known[self.labels] = True

    def encode(self, prediction: np.ndarray) -> bytes:
        """A prediction as the png that the server reads.

        Args:
            prediction: (H, W) uint8 train ids.
        """
        done, data = cv2.imencode(".png", self.labels[prediction])
        assert done
        return data.tobytes()

    def check(self, place: Path) -> None:
        """Refuse a zip or a folder that lacks a label map, has another file, or a wrong one.

        Raises:
            ValueError: names the first file that is wrong, what is wrong, and the remedy.
            FileNotFoundError: there is nothing there.
        """
        of_image: dict[str, str] = {}
        for file in _files(place):
            name = self.dataset.submission_name(file)
            if name not in self.images:
                raise ValueError(
                    f"{place} holds {file}, which is the label map of none of the "
                    f"{len(self.images)} images of {self.split}; take it out"
                )
            if name in of_image:
                raise ValueError(
                    f"{place} holds {of_image[name]} and {file} for one image; take one of them out"
                )
            of_image[name] = file
        missing = sorted(self.images.keys() - of_image.keys())
        if missing:
            raise ValueError(
                f"{place} has {len(of_image)} of {len(self.images)} label maps, {missing[0]} is "
                "missing; predict all images again"
            )
        names = list(self.images)

        def check(index: int) -> None:
            self._check_map(place / of_image[names[index]], self.images[names[index]])

        for _ in in_order(check, range(len(names)), "checking"):
            pass

    def _check_map(self, path: Path, image: Path) -> None:
        labels = read_labels(path)
        height, width = _size(image)
        if labels.shape != (height, width):
            raise ValueError(
                f"{path} is {labels.shape[1]}x{labels.shape[0]} but its image is {width}x{height}; "
                "predict at the size of the image"
            )
        counts = np.bincount(labels.ravel(), minlength=256)
        alien = np.flatnonzero(counts * ~self._known)
        if len(alien):
            known = label_ranges(dict.fromkeys(self.labels.tolist(), 0))
            raise ValueError(
                f"{path} has label {alien[0]}, which is no class of {self.dataset.title}; write "
                f"its own labels ({known}), not train ids"
            )

    def pack(self, folder: Path, archive: Path) -> None:
        """Put a folder that was checked in a zip, which appears whole or not at all.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        partial = archive.with_name(f"{archive.name}.part")
        try:
            with zipfile.ZipFile(partial, "w") as packed:  # stored: png is compressed already
                for name in self.images:
                    packed.write(folder / name, name)
            with zipfile.ZipFile(partial) as packed:
                damaged = packed.testzip()
            if damaged:
                raise OSError(f"{damaged} in it cannot be read again")
            partial.replace(archive)
        except OSError as error:
            raise OSError(
                f"cannot write {archive} ({error.strerror or error}); free some space and repeat "
                "the command, nothing is predicted twice"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def _files(place: Path) -> list[str]:
    """The names of all files below a folder or in a zip, in order."""
    if place.is_dir():
        return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    if not place.is_file():
        raise FileNotFoundError(f"there is no {place}; name the zip that is to be checked")
    if place.suffix.lower() != ".zip":
        raise ValueError(f"{place} is not called .zip; rename it if it is one")
    try:
        with zipfile.ZipFile(place) as packed:
            return sorted(info.filename for info in packed.infolist() if not info.is_dir())
    except zipfile.BadZipFile:
        raise ValueError(f"{place} is not a whole zip; make or copy it again") from None


def _size(path: Path) -> tuple[int, int]:
    """Height and width of an image, of which only the head is read where that is possible."""
    try:
        with Image.open(path if path.is_file() else io.BytesIO(read_bytes(path))) as image:
            return image.height, image.width
    except (OSError, SyntaxError):
        raise SampleError(f"image {path} cannot be read; download it again") from None
