"""Images and masks of your own, without a line of code.

Put them in a folder, and say in `classes.yaml` what the labels mean:

```
FOLDER/classes.yaml
FOLDER/images/train/*.jpg    FOLDER/masks/train/*.png
FOLDER/images/val/*.jpg      FOLDER/masks/val/*.png
```

```yaml
classes:                  # the order is that of the scores
  - name: road
    ids: [1]              # what the pixels of road are in a mask
  - name: vehicle
    ids: [2, 3, 7]        # several labels merged into one class
    colour: [0, 0, 142]   # to paint it in; left out, one is chosen
void:
  ids: [0, 255]           # not trained on and not scored
```

A label that this does not name is an error, so that no mistake in a mask goes unseen; write
`void: rest` to make all other labels void. Masks that are painted are named by their colours:

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
from pathlib import Path
from typing import Unpack

import cv2
import numpy as np

from gald.data.datamodule import DatasetDataModule, Loading
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.folder_classes import Classes, read_classes
from gald.data.labels import UNKNOWN, VOID
from gald.data.pairs import reject
from gald.data.reading.files import IMAGE_SUFFIXES, is_dir, list_files, open_labels, read_image
from gald.data.reading.png import LazyArray

# Where the images and the masks of a part may be.
_LAYOUTS = (("images/{}", "masks/{}"), ("{}/images", "{}/masks"))


class Folder(SegmentationDataset):
    """Images and masks of your own, with the classes that a `classes.yaml` lists.

    Layout: `images/{train,val,test}` and `masks/{train,val,test}`, or `{train,val,test}/images`
    and `{train,val,test}/masks`; test may be left out. Images are png or jpg, at any depth; a mask
    is a png of the same size at the same place with the same name. Masks hold ids, as 8-bit grey
    or palette png, or colours, as RGB png. `root` may be a zip.

    Args:
        root: folder that holds the images, the masks and the list of classes.
        split: `train`, `val`, `test`, or several joined, as `train+val`.
        classes: the list of classes, from `root` or absolute.
        image_suffix: what the names of images end in and those of masks do not; other files in
            the folder are left alone.
        mask_suffix: what the names of masks end in and those of images do not, as `_labelIds`.
    """

    title = "folder"
    name = "folder"
    instructions = """\
these are images of your own; {root} shall hold
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
        # With other datasets these are facts of the class.
        self.class_names = self.classes.names  # ty: ignore[invalid-attribute-access]
        self.palette = self.classes.palette  # ty: ignore[invalid-attribute-access]
        self.colours = _ColourTable(self.classes) if self.classes.colours else None
        train_ids = {train_id: train_id for train_id in (*range(len(self.class_names)), VOID)}
        others = dict.fromkeys(range(256), VOID) if self.classes.rest_is_void else {}
        self.label_map = train_ids if self.colours else others | self.classes.ids
        super().__init__(root, split)

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the files of the two folders of a part, by where they are in them."""
        folders = part_folders(self.root, split)
        if folders is None:
            layouts = " or ".join(f"{i} and {m}" for i, m in _LAYOUTS).replace("{}", split)
            raise FileNotFoundError(
                f"no {split} images and masks at {self.root} (looked for {layouts}); put them "
                "there, or set data.root"
            )
        images = _by_place(folders[0], self.image_suffix, IMAGE_SUFFIXES)
        masks = _by_place(folders[1], self.mask_suffix, (".png",))
        for place in sorted(images.keys() - masks.keys()):
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
        """Open ids as they are stored, and colours as the train ids they stand for."""
        if self.colours is None:
            return open_labels(sample.mask)
        return self.colours.train_ids(read_image(sample.mask))

    def fingerprint(self) -> str:
        """Hash of the files, of the label map, and of what the colours mean."""
        facts = (super().fingerprint(), sorted(self.classes.colours.items()))
        return hashlib.sha256(f"{facts} {self.classes.rest_is_void}".encode()).hexdigest()

    def unknown_label(self, index: int) -> str:
        """Say which label or colour of which mask the list of classes does not name."""
        mask = self.samples[index].mask
        labels = self.read_labels(self.samples[index])
        row, column = np.argwhere(cv2.LUT(labels, self.lut) == UNKNOWN)[0]
        if self.colours is None:
            alien = f"label {labels[row, column]}"
        else:
            alien = f"colour {read_image(mask)[row, column].tolist()}"
        return (
            f"mask {mask} has {alien} in row {row}, column {column}, which {self.classes.path} "
            "does not name; correct the mask, name it there, or write void: rest"
        )


class FolderDataModule(DatasetDataModule):
    """A folder of your own as batches: trains on train, selects on val, reports test if it exists.

    Args:
        root: folder that holds the images, the masks and the list of classes.
        classes: the list of classes, from `root` or absolute.
        image_suffix: what the names of images end in; see `Folder`.
        mask_suffix: what the names of masks end in; see `Folder`.
        train_split: `train`, or `train+val` to train on val too once all choices are made.
        loading: as in `SegmentationDataModule`.
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
        """Names of the classes, in the order of the list."""
        return self.names

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours to paint the classes in."""
        return self.colours

    def make_dataset(self, split: str) -> Folder:
        """List the scenes of one split."""
        split = self.train_split if split == "train" else split
        return Folder(self.root, split, self.classes, self.image_suffix, self.mask_suffix)


def part_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """The folders of a part's images and masks, if it has both."""
    for images, masks in _LAYOUTS:
        folders = root / images.format(split), root / masks.format(split)
        if all(map(is_dir, folders)):
            return folders
    return None


class _ColourTable:
    """Looks up the train ids of colours."""

    def __init__(self, classes: Classes) -> None:
        colours = np.array([list(classes.colours)], np.uint8)
        packed = _pack(colours)[0]
        order = np.argsort(packed)
        self.packed = packed[order]
        self.ids = np.array(list(classes.colours.values()), np.uint8)[order]
        self.other = VOID if classes.rest_is_void else UNKNOWN

    def train_ids(self, image: np.ndarray) -> np.ndarray:
        """Train ids (H, W) uint8 of colours (H, W, 3) uint8; 254 where there is no class."""
        packed = _pack(image)
        # the last is left out, so that what lies beyond is compared with it and not found
        places = np.searchsorted(self.packed[:-1], packed)
        return np.where(self.packed[places] == packed, self.ids[places], np.uint8(self.other))


def _pack(colours: np.ndarray) -> np.ndarray:
    """One number for each colour, (H, W, 3) uint8 -> (H, W) uint32."""
    return cv2.cvtColor(colours, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]


def _by_place(folder: Path, suffix: str, endings: tuple[str, ...]) -> dict[str, Path]:
    """Files by their path in the folder, without the suffix and the ending."""
    found: dict[str, Path] = {}
    for path in list_files(folder, endings):
        place = path.relative_to(folder).with_suffix("").as_posix()
        if path.name.startswith(".") or not place.endswith(suffix):
            continue
        place = place.removesuffix(suffix)
        if place in found:
            reject(f"{found[place]} and {path} have one name; remove one of them")
        found[place] = path
    return found


def _classes_path(root: str | Path, classes: str) -> Path:
    return Path(root).expanduser() / Path(classes).expanduser()
