"""CrackForest: 118 photographs of road surfaces, with cracks a few pixels wide."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from gald.data.datamodule import DatasetDataModule
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.labels import VOID
from gald.data.pairs import by_name, pair, reject
from gald.data.reading.image import refuse_large
from gald.data.reading.listing import read_lines
from gald.data.reading.mask import open_labels
from gald.data.reading.png import LazyArray
from gald.data.reading.sample_error import SampleError

_FIRST = {"train": 1, "val": 70, "test": 80}  # number of the first photograph of each split
_LAST = 118
_CRACK = 1  # segment of a .seg file; 0 is road, 2 road inside of a ring of cracks, 3 a faint line


class CrackForest(SegmentationDataset):
    """Road surfaces with cracks of one to a few pixels, 2 classes.

    Thin structures alone: 1.6 % of the pixels are crack, and scene context hardly matters. All 118
    photographs have 480x320 pixels.

    The split is ours, as the owners publish none: photographs 1 to 69 are train, 70 to 79 val, and
    80 to 118 test. Consecutive numbers often show the same stretch of road, so a split by chance
    would test on roads of train. For the same reason `data.groups` is the ten of the number, which
    gives only four groups in test: too few to speak of other roads than these.

    Format: `image/NNN.jpg` with `seg/NNN.seg`, as the owners store them, or `images/*.jpg` with
    `masks/*.png`, which store 0 for road and 1 for crack; at any depth. Segment 1 is crack. The
    segments 0, 2 (road inside of a ring of cracks) and 3 (a faint line, in five photographs) are
    road. The `.mat` files hold the same segments. Photographs without labels are ignored.

    Licence: non-commercial research only.
    Source: https://github.com/cuilimeng/CrackForest-dataset.
    Citation: Shi, Cui, Qi, Meng, Chen, "Automatic Road Crack Detection Using Random Structured
    Forests", IEEE Transactions on Intelligent Transportation Systems 2016.

    Args:
        root: folder with `image` and `seg`, or with `images` and `masks`.
        split: `train`, `val`, `test`, or several joined by `+`, e.g. `train+val`.
    """

    title = "CrackForest"
    name = "crackforest"
    url = "https://github.com/cuilimeng/CrackForest-dataset"
    licence = "non-commercial research only"
    required = (("images", "image"), ("masks", "seg"))
    instructions = """\
{title} is not fetched by gald: no checksum is published to detect damaged or altered files
licence: {licence}
files:
  CrackForest-dataset  18 MB  {url}  (a repository)
steps:
  1. git clone {url}
  2. mkdir -p {quoted_root} && mv CrackForest-dataset/image CrackForest-dataset/seg {quoted_root}
{root} then holds:
  image/*.jpg, the images
  seg/*.seg, the labels
gald sorts them into train, val and test by number, without a list.
"""
    class_names: ClassVar[tuple[str, ...]] = ("road", "crack")
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = ((60, 60, 60), (255, 220, 0))
    label_map: Mapping[int, int] = {0: 0, 1: 1, VOID: VOID}
    splits = ("train", "val", "test")
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (69,),
        "val": (10,),
        "test": (39,),
    }

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the images and masks, and keep those of the split's numbers."""
        images, masks = self.folder("images", "image"), self.folder("masks", "seg")
        samples = _with_seg(images, masks) if masks.name == "seg" else pair(images, masks)
        return [sample for sample in samples if _split_of(sample) == split]

    def open_labels(self, sample: Sample) -> LazyArray:
        """Open stored ids, or draw the segments of a .seg file."""
        return _draw(sample.mask) if sample.mask.suffix == ".seg" else open_labels(sample.mask)


def _with_seg(images: Path, masks: Path) -> list[Sample]:
    """Return the images that have a .seg file; others of the owners' folder have no labels."""
    image_of = by_name(images)
    samples = []
    for name, mask in sorted(by_name(masks, (".seg",)).items()):
        if name in image_of:
            samples.append(Sample(name, image_of[name], mask))
        else:
            reject(f"mask {mask} has no image {name}.jpg in {images}; restore the image")
    return samples


def _split_of(sample: Sample) -> str | None:
    number = int(sample.name) if sample.name.isascii() and sample.name.isdecimal() else 0
    if not 1 <= number <= _LAST:
        reject(
            f"image {sample.image} has no number from 001 to {_LAST}, which says its split; rename "
            "it, or read the folder with data=folder"
        )
        return None
    return max((first, split) for split, first in _FIRST.items() if first <= number)[1]


def _draw(path: Path) -> np.ndarray:
    """Draw the runs of a .seg file as ids (H, W) uint8.

    The file has lines of a header, the line `data`, and for each run the segment, the row, and its
    first and last column.
    """
    lines = read_lines(path)
    try:
        start = lines.index("data")
        header = dict(line.split(maxsplit=1) for line in lines[:start] if " " in line)
        size = int(header["height"]), int(header["width"])
        refuse_large(size, f"mask {path}")
        ids = np.full(size, VOID, np.uint8)
        for run in filter(None, lines[start + 1 :]):
            segment, row, first, last = map(int, run.split())
            if not (0 <= segment <= 3 and 0 <= row < size[0] and 0 <= first <= last < size[1]):
                raise ValueError(f"the run {run} is outside of {size}")
            ids[row, first : last + 1] = segment == _CRACK
        if (ids == VOID).any():
            row, column = np.argwhere(ids == VOID)[0]
            raise ValueError(f"no run covers row {row}, column {column}")
    except SampleError:
        raise
    except (ValueError, KeyError) as error:
        raise SampleError(f"mask {path} is no list of segments ({error}); copy it again") from None
    return ids


class CrackForestDataModule(DatasetDataModule):
    """Data module of CrackForest: trains on train, selects on val, reports test.

    Args:
        root: folder with `image` and `seg`, or with `images` and `masks`.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = CrackForest
