"""Your own images and masks, without a line of code.

Put them into a folder, and describe the labels in `classes.yaml`:

```
FOLDER/classes.yaml
FOLDER/images/train/*.jpg    FOLDER/masks/train/*.png
FOLDER/images/val/*.jpg      FOLDER/masks/val/*.png
```

These layouts are found by themselves, with `val` or `valid` (`SPLIT` stands for the split):

| layout | known from |
|---|---|
| `images/SPLIT` and `masks/SPLIT`, `annotations/SPLIT` or `labels/SPLIT` | |
| `SPLIT/images` and `SPLIT/masks` or `SPLIT/labels` | |
| `img_dir/SPLIT` and `ann_dir/SPLIT` | mmsegmentation |
| `SPLIT` and `SPLITannot`, `SPLIT_masks` or `SPLIT_labels` | CamVid |
| `SPLIT/a.jpg` beside `SPLIT/a.png` or `SPLIT/a_mask.png`, with `_classes.csv` | Roboflow |
| `JPEGImages` and `SegmentationClass`, lists `ImageSets/Segmentation/SPLIT.txt` | VOC |
| the same with `labelmap.txt` | CVAT |
| one set: `images` and `masks`, or `a.jpg` beside `a.png` or `a_mask.png` | |

Any other layout is set by keys: `data.images=photos/SPLIT data.masks=truth/SPLIT`, and
`data.lists=SPLIT.txt` if lists hold the splits. `data.mask_suffix=_truth` says that the mask of
`a.jpg` is `a_truth.png`. Without a `val`, `data.val_fraction=0.2` holds out a fifth of `train`.

```yaml
classes:                  # in the order of the scores
  - name: road
    ids: [1]              # value of road pixels in a mask
  - name: vehicle
    ids: [2, 3, 7]        # several labels merged into one class
    colour: [0, 0, 142]   # in figures; chosen automatically if left out
void:
  ids: [0, 255]           # neither trained on nor scored
```

A label that is not listed is an error, so that no mistake in a mask goes unnoticed; write
`void: rest` to make all other labels void. For masks that store colours, list colours:

```yaml
classes:
  - name: road
    colours: [[128, 64, 128]]
  - name: vehicle
    colours: [[0, 0, 142], [0, 0, 70]]
void: rest
```

Then `gald data verify folder data.root=FOLDER` and `gald train data=folder data.root=FOLDER`.
"""

import hashlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Unpack

import cv2
import numpy as np

from gald.data.datamodule import DatasetDataModule, Loading
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.folder_classes import Classes, find_classes, read_classes
from gald.data.folder_layout import NAMES, Keys, Place, find_place, list_pairs, looked_for
from gald.data.labels import UNKNOWN, VOID
from gald.data.reading.mask import open_labels, read_colours, read_labels
from gald.data.reading.png import LazyArray
from gald.options.ranges import Range
from gald.progress import say


class Folder(SegmentationDataset):
    """Your own images and masks, with the classes listed in a `classes.yaml`.

    The images and masks are found by themselves in the layouts of `gald.data.folder_layout`, or
    where `images`, `masks` and `lists` say; test is optional. Images are png or jpg, at any depth;
    a mask is a png with the same size, relative path and name. Masks store ids, as 8-bit grey or
    palette png, or colours, as RGB png. `root` may be a zip.

    Args:
        root: folder with the images, the masks and the list of classes.
        split: `train`, `val`, `test`, or several joined by `+`, e.g. `train+val`.
        classes: path of the list of classes, relative to `root` or absolute; None is
            `classes.yaml`, or, without it, CVAT's `labelmap.txt` or Roboflow's `_classes.csv`.
        image_suffix: end of the image names that the mask names lack, with or without the file
            ending; files without it are ignored.
        mask_suffix: end of the mask names that the image names lack, e.g. `_labelIds` or
            `_mask.png`; files without it are ignored. None is found by itself.
        images: folder of the images in `root`, in which `SPLIT` stands for the split.
        masks: folder of the masks in `root`, in which `SPLIT` stands for the split.
        lists: file in `root` with the names of a split, one a line, e.g.
            `ImageSets/Segmentation/SPLIT.txt`.
        val_fraction: if there is no val split, the fraction of train that becomes val. A hash of
            the names chooses the images, so frames of one video are in both.

    Raises:
        ValueError: several layouts fit, or `val_fraction` and a val split exist.
        FileNotFoundError: the list of classes, or the images and masks of the split do not exist.
    """

    title = "folder"
    name = "folder"
    instructions = """\
these are your own images; gald data import draws masks from polygons of COCO or labelme.
The layouts of VOC, CVAT, Roboflow and mmsegmentation are read as they are; otherwise,
{root} must contain
  images/train images/val   png or jpg
  masks/train masks/val     png of the same names
  classes.yaml              what the labels in the masks mean, for example:
    classes:
      - {name: road, ids: [1]}
      - {name: car, ids: [2, 3]}
    void: {ids: [0]}
"""
    splits = ("train", "val", "test")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        classes: str | None = None,
        image_suffix: str = "",
        mask_suffix: str | None = None,
        images: str | None = None,
        masks: str | None = None,
        lists: str | None = None,
        val_fraction: Annotated[float, Range(above=0, below=1, example=0.2)] | None = None,
    ) -> None:
        self.keys = Keys(images, masks, lists, image_suffix, mask_suffix)
        self.val_fraction = _check_fraction(val_fraction)
        self.classes = read_classes(_classes_path(root, classes))
        # class attributes in other datasets
        self.class_names = self.classes.names  # ty: ignore[invalid-attribute-access]
        self.palette = self.classes.palette  # ty: ignore[invalid-attribute-access]
        self.colours = _ColourTable(self.classes) if self.classes.colours else None
        train_ids = {train_id: train_id for train_id in (*range(len(self.class_names)), VOID)}
        others = dict.fromkeys(range(256), VOID) if self.classes.rest_is_void else {}
        self.label_map = train_ids if self.colours else others | self.classes.ids
        self.image_folders: list[Path] = []  # of the splits
        super().__init__(root, split)

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the images and masks of a split by their relative paths."""
        if self.val_fraction is None or split == "test":
            return self._pairs(split)
        if place := find_place(self.root, "val", self.keys):
            raise ValueError(
                f"data.val_fraction is {self.val_fraction}, but {self.root} has a val split "
                f"({place.layout.at(place.name)}); remove data.val_fraction or the split"
            )
        samples = self._pairs("train")
        held_out = _held_out(samples, self.val_fraction)
        return [sample for sample in samples if (sample.name in held_out) == (split == "val")]

    def _pairs(self, split: str) -> list[Sample]:
        place = self._place(split)
        self.image_folders.append(place.images)
        return list_pairs(place)

    def image_path(self, index: int) -> str:
        """Return the path of the image file below its folder of images."""
        image = self.samples[index].image
        folder = next(folder for folder in self.image_folders if image.is_relative_to(folder))
        return image.relative_to(folder).as_posix()

    def _place(self, split: str) -> Place:
        place = find_place(self.root, split, self.keys)
        if place is not None:
            return place
        found = [other for other in self.splits if find_place(self.root, other, self.keys)]
        remedy = "put them there, or set data.images and data.masks, or data.root"
        if split == "val" and "train" in found:
            remedy = (
                "put them there, set data.val_fraction=0.2 to hold out a fifth of train, or set "
                "data.root"
            )
        raise FileNotFoundError(
            f"no {split} images and masks at {self.root} (looked for "
            f"{looked_for(split, self.keys)}); {remedy}"
        )

    def open_labels(self, sample: Sample) -> LazyArray:
        """Open stored ids, or the train ids of stored colours."""
        if self.colours is None:
            return open_labels(sample.mask)
        return self.colours.train_ids(read_colours(sample.mask))

    def hidden(self, index: int) -> tuple[float, float]:
        """Return the fraction of one mask that `void: rest` hides, all and as single pixels."""
        if not self.classes.rest_is_void:
            return 0.0, 0.0
        mask = self.samples[index].mask
        if self.colours is not None:
            colours = read_colours(mask)
            labels, hidden = _pack(colours), ~self.colours.lists(colours)
        else:
            labels = read_labels(mask)
            hidden = ~np.isin(labels, list(self.classes.ids))
        return float(hidden.mean()), float((hidden & _is_single(labels)).mean())

    def fingerprint(self) -> str:
        """Hash of the files, the label map and the classes of the colours."""
        facts = (super().fingerprint(), sorted(self.classes.colours.items()))
        return hashlib.sha256(f"{facts} {self.classes.rest_is_void}".encode()).hexdigest()

    def unknown_label(self, index: int) -> str:
        """Return the message about the mask and the label or colour that is not listed."""
        mask = self.samples[index].mask
        labels = self.read_labels(self.samples[index])
        row, column = np.argwhere(cv2.LUT(labels, self.lut) == UNKNOWN)[0]
        if self.colours is None:
            unknown = f"label {labels[row, column]}"
        else:
            unknown = f"colour {read_colours(mask)[row, column].tolist()}"
        void = "write void: rest"
        if self.classes.path.suffix.lower() in (".txt", ".csv"):
            void = f"write {self.root / 'classes.yaml'}, which can make labels void"
        return (
            f"mask {mask} has {unknown} in row {row}, column {column}, which {self.classes.path} "
            f"does not list; correct the mask, list it there, or {void}"
        )


class FolderDataModule(DatasetDataModule):
    """Data module of `Folder`: trains on train, selects on val, reports test if it exists.

    Prints where it found the images, the masks and the list of classes.

    Args:
        root: folder with the images, the masks and the list of classes.
        classes: path of the list of classes; see `Folder`.
        image_suffix: end of the image names; see `Folder`.
        mask_suffix: end of the mask names; see `Folder`.
        images: folder of the images; see `Folder`.
        masks: folder of the masks; see `Folder`.
        lists: file with the names of a split; see `Folder`.
        val_fraction: fraction of train that becomes val; see `Folder`.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: regular expression with one group in parentheses, or `folder`, for the path of an
            image below its folder of images; see `gald.data.groups`. None for independent images.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = Folder

    def __init__(
        self,
        root: str,
        classes: str | None = None,
        image_suffix: str = "",
        mask_suffix: str | None = None,
        images: str | None = None,
        masks: str | None = None,
        lists: str | None = None,
        val_fraction: Annotated[float, Range(above=0, below=1, example=0.2)] | None = None,
        train_split: str = "train",
        groups: str | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, train_split, groups, **loading)
        self.classes = classes
        self.keys = Keys(images, masks, lists, image_suffix, mask_suffix)
        self.val_fraction = _check_fraction(val_fraction)
        listed = read_classes(_classes_path(root, classes))
        self.names, self.colours = listed.names, listed.palette
        folder = Path(root).expanduser()
        places = {split: find_place(folder, split, self.keys) for split in Folder.splits}
        self.has_test = places["test"] is not None
        if found := _describe(places):
            say(f"{root}: {found}, classes of {listed.path.name}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the list."""
        return self.names

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours of the classes in figures."""
        return self.colours

    def make_dataset(self, split: str) -> Folder:
        """List the samples of one split."""
        split = self.train_split if split == "train" else split
        keys = self.keys
        return Folder(
            self.root,
            split,
            self.classes,
            keys.image_suffix,
            keys.mask_suffix,
            keys.images,
            keys.masks,
            keys.lists,
            self.val_fraction,
        )


def _describe(places: Mapping[str, Place | None]) -> str:
    """Return layout and suffixes of the splits that exist, once if they are the same."""
    splits: dict[str, list[str]] = {}
    for split, place in places.items():
        if place is not None:
            splits.setdefault(str(place), []).append(split)
    return "; ".join(f"{', '.join(names)} in {where}" for where, names in splits.items())


def _check_fraction(fraction: float | None) -> float | None:
    number = isinstance(fraction, int | float)
    if fraction is not None and not (number and 0 < fraction < 1):
        raise ValueError(f"data.val_fraction is {fraction}; it must be between 0 and 1, e.g. 0.2")
    return fraction


class _ColourTable:
    """Lookup table from colours to train ids."""

    def __init__(self, classes: Classes) -> None:
        colours = np.array([list(classes.colours)], np.uint8)
        packed = _pack(colours)[0]
        order = np.argsort(packed)
        self.packed = packed[order]
        self.ids = np.array(list(classes.colours.values()), np.uint8)[order]
        self.other = VOID if classes.rest_is_void else UNKNOWN

    def train_ids(self, image: np.ndarray) -> np.ndarray:
        """Map colours (H, W, 3) uint8 to train ids (H, W) uint8; 254 for unknown colours."""
        indices, listed = self._find(image)
        return np.where(listed, self.ids[indices], np.uint8(self.other))

    def lists(self, image: np.ndarray) -> np.ndarray:
        """Return for each pixel whether its colour is in the table, (H, W) bool."""
        return self._find(image)[1]

    def _find(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        packed = _pack(image)
        # without the last colour, so that the index of a larger value stays within the table
        indices = np.searchsorted(self.packed[:-1], packed)
        return indices, self.packed[indices] == packed


def _pack(colours: np.ndarray) -> np.ndarray:
    """Pack each colour into one number, (H, W, 3) uint8 -> (H, W) uint32."""
    return cv2.cvtColor(colours, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]


def _classes_path(root: str | Path, classes: str | None) -> Path:
    root = Path(root).expanduser()
    folders = [root / name for names in NAMES.values() for name in names]
    return find_classes(root, classes, folders)


def _is_single(labels: np.ndarray) -> np.ndarray:
    """Return for each pixel whether it differs from all its neighbours, (H, W) bool."""
    height, width = labels.shape
    framed = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    single = np.ones(labels.shape, bool)
    for y, x in product(range(3), repeat=2):
        if (y, x) != (1, 1):
            single &= framed[y : y + height, x : x + width] != labels
    return single


def _held_out(samples: list[Sample], fraction: float) -> set[str]:
    """Return the names of a fraction of the samples, at least one, in the order of a hash."""
    names = sorted((s.name for s in samples), key=lambda n: hashlib.sha256(n.encode()).digest())
    return set(names[: max(1, round(fraction * len(names)))])
