"""Your own images and masks, without a line of code.

Put them into a folder, and describe the labels in `classes.yaml`:

```
FOLDER/classes.yaml
FOLDER/images/train/*.jpg    FOLDER/masks/train/*.png
FOLDER/images/val/*.jpg      FOLDER/masks/val/*.png
```

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
from itertools import product
from pathlib import Path
from typing import Unpack

import cv2
import numpy as np

from gald.data.datamodule import DatasetDataModule, Loading
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.folder_classes import Classes, read_classes
from gald.data.labels import UNKNOWN, VOID
from gald.data.pairs import reject
from gald.data.reading.files import (
    IMAGE_SUFFIXES,
    composed,
    is_dir,
    list_files,
    not_png,
    open_labels,
    read_colours,
    read_labels,
)
from gald.data.reading.png import LazyArray

# folders of the images and the masks of a split
_LAYOUTS = (("images/{}", "masks/{}"), ("{}/images", "{}/masks"))


class Folder(SegmentationDataset):
    """Your own images and masks, with the classes listed in a `classes.yaml`.

    Layout: `images/{train,val,test}` and `masks/{train,val,test}`, or `{train,val,test}/images`
    and `{train,val,test}/masks`; test is optional. Images are png or jpg, at any depth; a mask is a
    png with the same size, relative path and name. Masks store ids, as 8-bit grey or palette png,
    or colours, as RGB png. `root` may be a zip.

    Args:
        root: folder with the images, the masks and the list of classes.
        split: `train`, `val`, `test`, or several joined by `+`, e.g. `train+val`.
        classes: path of the list of classes, relative to `root` or absolute.
        image_suffix: end of the image names that the mask names lack; files without it are
            ignored.
        mask_suffix: end of the mask names that the image names lack, e.g. `_labelIds`; files
            without it are ignored.
    """

    title = "folder"
    name = "folder"
    instructions = """\
these are your own images; {root} must contain
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
        classes: str = "classes.yaml",
        image_suffix: str = "",
        mask_suffix: str = "",
    ) -> None:
        self.classes = read_classes(_classes_path(root, classes))
        self.image_suffix = image_suffix
        self.mask_suffix = mask_suffix
        # class attributes in other datasets
        self.class_names = self.classes.names  # ty: ignore[invalid-attribute-access]
        self.palette = self.classes.palette  # ty: ignore[invalid-attribute-access]
        self.colours = _ColourTable(self.classes) if self.classes.colours else None
        train_ids = {train_id: train_id for train_id in (*range(len(self.class_names)), VOID)}
        others = dict.fromkeys(range(256), VOID) if self.classes.rest_is_void else {}
        self.label_map = train_ids if self.colours else others | self.classes.ids
        super().__init__(root, split)

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the images and masks of a split by their relative paths."""
        folders = part_folders(self.root, split)
        if folders is None:
            layouts = " or ".join(f"{i} and {m}" for i, m in _LAYOUTS).replace("{}", split)
            raise FileNotFoundError(
                f"no {split} images and masks at {self.root} (looked for {layouts}); put them "
                "there, or set data.root"
            )
        images = _by_relative_path(folders[0], self.image_suffix, IMAGE_SUFFIXES)
        masks = _by_relative_path(folders[1], self.mask_suffix, (".png",))
        lossy = {}
        if images.keys() - masks.keys():
            lossy = _by_relative_path(folders[1], self.mask_suffix, (".jpg", ".jpeg"))
        for place in sorted(images.keys() - masks.keys()):
            if place in lossy:
                reject(not_png(lossy[place]))
                continue
            reject(
                f"image {images[place]} has no mask {place}{self.mask_suffix}.png in "
                f"{folders[1]}; add the mask, remove the image or set data.mask_suffix"
            )
        for place in sorted(masks.keys() - images.keys()):
            reject(
                f"mask {masks[place]} has no image {place}{self.image_suffix}.png or .jpg in "
                f"{folders[0]}; add the image, remove the mask or set data.image_suffix"
            )
        return [
            Sample(place.replace("/", "_"), images[place], masks[place])
            for place in sorted(images.keys() & masks.keys())
        ]

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
        return (
            f"mask {mask} has {unknown} in row {row}, column {column}, which {self.classes.path} "
            "does not list; correct the mask, list it there, or write void: rest"
        )


class FolderDataModule(DatasetDataModule):
    """Data module of `Folder`: trains on train, selects on val, reports test if it exists.

    Args:
        root: folder with the images, the masks and the list of classes.
        classes: path of the list of classes, relative to `root` or absolute.
        image_suffix: end of the image names; see `Folder`.
        mask_suffix: end of the mask names; see `Folder`.
        train_split: `train`, or `train+val` for a final training after model selection.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = Folder

    def __init__(
        self,
        root: str,
        classes: str = "classes.yaml",
        image_suffix: str = "",
        mask_suffix: str = "",
        train_split: str = "train",
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, train_split, **loading)
        self.classes = classes
        self.image_suffix = image_suffix
        self.mask_suffix = mask_suffix
        listed = read_classes(_classes_path(root, classes))
        self.names, self.colours = listed.names, listed.palette
        test = part_folders(Path(root).expanduser(), "test")
        self.has_test = test is not None

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
        return Folder(self.root, split, self.classes, self.image_suffix, self.mask_suffix)


def part_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Return the folders of a split's images and masks, or None if one is missing."""
    for images, masks in _LAYOUTS:
        folders = root / images.format(split), root / masks.format(split)
        if all(map(is_dir, folders)):
            return folders
    return None


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


def _is_single(labels: np.ndarray) -> np.ndarray:
    """Return for each pixel whether it differs from all its neighbours, (H, W) bool."""
    height, width = labels.shape
    framed = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    single = np.ones(labels.shape, bool)
    for y, x in product(range(3), repeat=2):
        if (y, x) != (1, 1):
            single &= framed[y : y + height, x : x + width] != labels
    return single


def _by_relative_path(folder: Path, suffix: str, endings: tuple[str, ...]) -> dict[str, Path]:
    """List files by their path in the folder, without the suffix and the file ending."""
    files: dict[str, Path] = {}
    for path in list_files(folder, endings):
        key = composed(path.relative_to(folder).with_suffix("").as_posix())
        if not key.endswith(suffix):
            continue
        key = key.removesuffix(suffix)
        if key in files:
            reject(f"{files[key]} and {path} have the same name; remove one of them")
        files[key] = path
    return files


def _classes_path(root: str | Path, classes: str) -> Path:
    return Path(root).expanduser() / Path(classes).expanduser()
