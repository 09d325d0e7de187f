"""Pascal Context with 59 classes, or 60 with the background."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import cv2
import numpy as np

from gald.data.datamodule import DatasetDataModule, Loading
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.downloads import Download
from gald.data.labels import VOID
from gald.data.pairs import by_name, reject
from gald.data.reading.files import fingerprint, is_dir, is_file, read_bytes
from gald.data.reading.listing import read_lines
from gald.data.reading.mask import read_labels
from gald.data.reading.mat import read_mat
from gald.data.reading.sample_error import SampleError
from gald.install.extras import require
from gald.progress import say

# One row per class, in alphabetical order: id among the 459 of the original release, name, colour
# in mmsegmentation, and index in the order that begins with VOC's 20 classes.
_CLASSES = (
    (0, "background", (120, 120, 120), 0),
    (2, "aeroplane", (180, 120, 120), 1),
    (9, "bag", (6, 230, 230), 21),
    (18, "bed", (80, 50, 50), 22),
    (19, "bedclothes", (4, 200, 3), 52),
    (22, "bench", (120, 120, 80), 23),
    (23, "bicycle", (140, 140, 140), 2),
    (25, "bird", (204, 5, 255), 3),
    (31, "boat", (230, 230, 230), 4),
    (33, "book", (4, 250, 7), 24),
    (34, "bottle", (224, 5, 255), 5),
    (44, "building", (235, 255, 7), 25),
    (45, "bus", (150, 5, 61), 6),
    (46, "cabinet", (120, 120, 70), 26),
    (59, "car", (8, 255, 51), 7),
    (65, "cat", (255, 6, 82), 8),
    (68, "ceiling", (143, 255, 140), 27),
    (72, "chair", (204, 255, 4), 9),
    (80, "cloth", (255, 51, 7), 28),
    (85, "computer", (204, 70, 3), 29),
    (98, "cow", (0, 102, 200), 10),
    (104, "cup", (61, 230, 250), 30),
    (105, "curtain", (255, 6, 51), 42),
    (113, "dog", (11, 102, 255), 12),
    (115, "door", (255, 7, 71), 31),
    (144, "fence", (255, 9, 224), 32),
    (158, "floor", (9, 7, 230), 33),
    (159, "flower", (220, 220, 220), 34),
    (162, "food", (255, 9, 92), 35),
    (187, "grass", (112, 9, 255), 36),
    (189, "ground", (8, 255, 214), 37),
    (207, "horse", (7, 255, 224), 13),
    (220, "keyboard", (255, 184, 6), 38),
    (232, "light", (10, 255, 71), 39),
    (258, "motorbike", (255, 41, 10), 14),
    (259, "mountain", (7, 255, 255), 40),
    (260, "mouse", (224, 255, 8), 41),
    (284, "person", (102, 8, 255), 15),
    (295, "plate", (255, 61, 6), 45),
    (296, "platform", (255, 194, 7), 43),
    (308, "pottedplant", (255, 122, 8), 16),
    (324, "road", (0, 255, 20), 46),
    (326, "rock", (255, 8, 41), 47),
    (347, "sheep", (255, 5, 153), 17),
    (349, "shelves", (6, 51, 255), 48),
    (354, "sidewalk", (235, 12, 255), 49),
    (355, "sign", (160, 150, 20), 44),
    (360, "sky", (0, 163, 255), 50),
    (366, "snow", (140, 140, 140), 51),
    (368, "sofa", (250, 10, 15), 18),
    (397, "table", (20, 255, 0), 11),
    (415, "track", (31, 255, 0), 53),
    (416, "train", (255, 31, 0), 19),
    (420, "tree", (255, 224, 0), 54),
    (424, "truck", (153, 255, 0), 55),
    (427, "tvmonitor", (0, 0, 255), 20),
    (440, "wall", (255, 71, 0), 56),
    (445, "water", (0, 235, 255), 57),
    (454, "window", (0, 173, 255), 58),
    (458, "wood", (31, 0, 255), 59),
)
_NAMES = tuple(name for _, name, _, _ in _CLASSES)
_COLOURS = tuple(colour for _, _, colour, _ in _CLASSES)
_FROM_459 = np.zeros(460, np.uint8)  # all other ids are background
_FROM_459[[row[0] for row in _CLASSES]] = range(60)
_FROM_VOC_FIRST = np.arange(256, dtype=np.uint8)  # unknown labels stay, and raise an error later
_FROM_VOC_FIRST[[row[3] for row in _CLASSES]] = range(60)

# Files of each `data.source`, in the order of preference: a png is faster to read than run lengths.
_LABELS = {
    "png": ("SegmentationClassContext", "59_context_labels"),
    "json": ("trainval_merged.json",),
    "mat": ("trainval",),
}
_ORDERS = ("alphabetical", "voc_first")
_USED_KEYS = frozenset(  # of trainval_merged.json
    [
        "images",
        "image_id",
        "file_name",
        "height",
        "width",
        "phase",
        "annos_segmentation",
        "category_id",
        "segmentation",
        "size",
        "counts",
    ]
)


class PascalContext59(SegmentationDataset):
    """Everyday photographs with a label for every pixel; background is void and not scored.

    4998 train and 5105 val images of VOC 2010, or 4996 and 5104 if the split comes from
    `trainval_merged.json`; papers report val. The 59 most frequent of 459 labels are classes, the
    others are background. State in a paper which scoring you use: 59 classes, or `PascalContext60`.

    The labels are converted to 0 for background and 1..59 for the classes in alphabetical order,
    from one of these sources:

    - `png`: the folder `SegmentationClassContext` that mmsegmentation and PyTorch-Encoding write,
      or `59_context_labels` of the original release. The first numbers the classes in alphabetical
      order, the second begins with the 20 classes of VOC. The files do not show which order they
      use, so it follows from the name of the folder, unless `order` is set.
    - `json`: `trainval_merged.json`, which `gald data prepare pascal_context` downloads. It lists
      the images of train and val itself. Its 590 MB are read once per process and need twice that
      memory meanwhile. Afterwards the run lengths of the masks stay in memory, one string per
      image; they need less than the file, and forked workers share them.
    - `mat`: the folder `trainval` of the original release, with all 459 labels.

    Layout: `VOCdevkit/VOC2010/JPEGImages/*.jpg`, and the labels in VOC2010 or a folder above it;
    `root` is VOC2010 or a folder above it. The splits of png and mat are
    `VOC2010/ImageSets/SegmentationContext/{train,val}.txt`, or else those of `ImageSets/Main`.

    Licence: images under Flickr's terms of use.
    Source: https://cs.stanford.edu/~roozbeh/pascal-context, images of
    http://host.robots.ox.ac.uk/pascal/VOC/voc2010.
    Citation: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation
    in the Wild", CVPR 2014.

    Args:
        root: VOC2010, VOCdevkit or the folder above.
        split: `train`, `val` or `train+val`.
        source: `png`, `json` or `mat`; `auto` uses the first of these that exists.
        order: order of png labels: `alphabetical` or `voc_first`; `auto` follows from the name of
            the folder.
    """

    title = "Pascal Context, 59 classes"
    name = "pascal_context"
    url = "https://cs.stanford.edu/~roozbeh/pascal-context"
    licence = "images of VOC 2010, under Flickr's terms of use"
    downloads = (
        Download(
            "VOCtrainval_03-May-2010.tar",
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
            "1.3 GB",
            "sha1:bf9985e9f2b064752bf6bd654d89f017c76c395a",
            folder="VOCdevkit/VOC2010",
        ),
        Download(
            "trainval_merged.json",
            "https://codalabuser.blob.core.windows.net/public/trainval_merged.json",
            "590 MB",
            "sha1:169325d9f7e9047537fedca7b04de4dddf10b881",
        ),
    )
    required = (
        ("VOCdevkit/VOC2010/JPEGImages",),
        (
            "trainval_merged.json",
            "VOCdevkit/VOC2010/trainval_merged.json",
            "VOCdevkit/VOC2010/SegmentationClassContext",
            "59_context_labels",
            "trainval",
        ),
    )
    class_names: ClassVar[tuple[str, ...]] = _NAMES[1:]
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = _COLOURS[1:]
    label_map: Mapping[int, int] = {0: VOID} | {i: i - 1 for i in range(1, 60)}
    follows_tags = False
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (4998, 4996),
        "val": (5105, 5104),
    }

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        source: Literal["auto", "png", "json", "mat"] = "auto",
        order: Literal["auto", "alphabetical", "voc_first"] = "auto",
    ) -> None:
        for key, value, choices in (("source", source, _LABELS), ("order", order, _ORDERS)):
            if value not in ("auto", *choices):
                raise ValueError(
                    f"data.{key} ({value}) is unknown; choose one of auto, {', '.join(choices)}"
                )
        self.root = Path(root).expanduser()
        images = self._first("JPEGImages")
        if images is None:
            raise self.missing("VOCdevkit/VOC2010/JPEGImages")
        self.images = images
        self.source, self.masks = self._choose(source)
        if self.source == "json":
            require(f"{self.masks} of {self.title}", "data", "pycocotools")
        in_voc_order = self.masks.name == "59_context_labels"
        self.order = _ORDERS[in_voc_order] if order == "auto" else order
        self.runs: dict[str, bytes] = {}  # source json: size and run lengths of each image, as json
        super().__init__(root, split)

    def list_samples(self, split: str) -> list[Sample]:
        """Read the list of the split, from the json or from ImageSets."""
        images = by_name(self.images, (".jpg",))
        if self.source == "json":
            listing = self.masks
            runs = _read_json(listing, fingerprint(listing))[split]
            self.runs |= runs
            masks = dict.fromkeys(runs, listing)
            names = list(runs)
        else:
            listing = self._list(split)
            masks = by_name(self.masks, (f".{self.source}",))
            names = [line.split()[0] for line in read_lines(listing) if line.strip()]
        samples = []
        for name in sorted(names):
            if name not in images:
                reject(
                    f"{listing} of {self.title} names {name}, but there is no {name}.jpg in "
                    f"{self.images}; restore the image"
                )
            elif name not in masks:
                reject(
                    f"{listing} of {self.title} names {name}, but there is no "
                    f"{name}.{self.source} in {self.masks}; restore the mask or delete the line"
                )
            else:
                samples.append(Sample(name, images[name], masks[name]))
        return samples

    def open_labels(self, sample: Sample) -> np.ndarray:
        """Read labels, converted to 0..59 in alphabetical order, from png, json or mat."""
        if self.source == "json":
            return _draw(self.runs[sample.name], sample)
        if self.source == "mat":
            return _FROM_459[read_mat(sample.mask, "LabelMap", largest=459)]
        labels = read_labels(sample.mask)
        return cv2.LUT(labels, _FROM_VOC_FIRST) if self.order == "voc_first" else labels

    def fingerprint(self) -> str:
        """Hash of the files, the source and the order."""
        parts = (super().fingerprint(), self.source, self.order)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def _choose(self, source: str) -> tuple[str, Path]:
        """Return the source to read from, and its file or folder."""
        paths = {kind: self._first(*names) for kind, names in _LABELS.items()}
        existing = {kind: path for kind, path in paths.items() if path is not None}
        if source == "auto" and existing:
            source, *others = existing
            if others:
                say(
                    f"{self.title}: labels from {existing[source]}; "
                    f"data.source={' or '.join(others)} reads other labels found at {self.root}"
                )
        if source in existing:
            return source, existing[source]
        pickle = self._first("train.pth", "val.pth")
        if pickle is not None:
            raise ValueError(
                f"{pickle} of PyTorch-Encoding is not read for {self.title}, because it is a "
                "pickle, which may run any code; run gald data prepare pascal_context to download "
                "trainval_merged.json, from which it was converted"
            )
        wanted = _LABELS.values() if source == "auto" else [_LABELS[source]]
        raise self.missing(" or ".join(name for names in wanted for name in names))

    def _first(self, *names: str) -> Path | None:
        """Return the first existing file or folder of several, from `root` down to VOC2010."""
        for name in names:
            exists = is_file if Path(name).suffix else is_dir
            for place in ("", "VOCdevkit", "VOC2010", "VOCdevkit/VOC2010"):
                if exists(self.root / place / name):
                    return self.root / place / name
        return None

    def _list(self, split: str) -> Path:
        """Return the list of a split: SegmentationContext if it exists, else Main of VOC 2010."""
        listings = [f"ImageSets/{kind}/{split}.txt" for kind in ("SegmentationContext", "Main")]
        for listing in listings:
            if is_file(self.images.parent / listing):
                return self.images.parent / listing
        raise self.missing(" or ".join(listings))


class PascalContext60(PascalContext59):
    """Pascal Context with background as class 0, trained and scored like the other classes."""

    title = "Pascal Context, 60 classes"
    class_names: ClassVar[tuple[str, ...]] = _NAMES
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = _COLOURS
    label_map: Mapping[int, int] = {i: i for i in range(60)}


_SCORED = {59: PascalContext59, 60: PascalContext60}


class PascalContextDataModule(DatasetDataModule):
    """Data module of Pascal Context: trains on train, selects and reports on val.

    Args:
        root: VOC2010, VOCdevkit or the folder above.
        classes: 59, or 60 to score the background too.
        source: files of the labels; see `PascalContext59`.
        order: order of png labels; see `PascalContext59`.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = PascalContext59
    has_test = False

    def __init__(
        self,
        root: str,
        classes: Literal[59, 60] = 59,
        source: Literal["auto", "png", "json", "mat"] = "auto",
        order: Literal["auto", "alphabetical", "voc_first"] = "auto",
        train_split: str = "train",
        groups: str | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, train_split, groups, **loading)
        if classes not in _SCORED:
            raise ValueError(
                f"data.classes is {classes}; Pascal Context has 59, or 60 with the background"
            )
        self.dataset_class = _SCORED[classes]
        self.classes = classes
        self.source = source
        self.order = order

    def make_dataset(self, split: str) -> PascalContext59:
        """Find the labels and list the samples of one split."""
        split = self.train_split if split == "train" else split
        return _SCORED[self.classes](self.root, split, self.source, self.order)


@lru_cache(maxsize=1)
def _read_json(path: Path, state: str) -> dict[str, dict[str, bytes]]:
    """Return size and run lengths of every image by split and name, as json.

    `state` is the file's fingerprint: part of the key of the cache, so that a changed file is read
    again.
    """
    say(f"reading {path}, once")
    broken = f"{path} is not a complete trainval_merged.json"
    remedy = "move it away and run gald data prepare pascal_context"
    try:
        content = json.loads(read_bytes(path), object_hook=_drop_unused)
        images, annotations = content["images"], content["annos_segmentation"]
        masks: dict[Any, list[tuple[int, Any]]] = {image["image_id"]: [] for image in images}
        for annotation in annotations:
            runs = annotation["category_id"], annotation["segmentation"]
            masks[annotation["image_id"]].append(runs)
        runs_of: dict[str, dict[str, bytes]] = {"train": {}, "val": {}}
        for image in images:
            if image["phase"] in runs_of:
                content = image["height"], image["width"], masks[image["image_id"]]
                name = Path(image["file_name"]).stem
                # One string instead of thousands of objects: forked workers share it, but would
                # copy each object that they access.
                runs_of[image["phase"]][name] = json.dumps(content).encode()
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{broken} ({error}); {remedy}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise SampleError(f"{broken} (no {error}); {remedy}") from None
    return runs_of


def _drop_unused(content: dict[str, Any]) -> dict[str, Any]:
    """Drop unused keys while the json is read: parts, boundaries, key points."""
    return {key: value for key, value in content.items() if key in _USED_KEYS}


def _draw(runs: bytes, sample: Sample) -> np.ndarray:
    """Draw the masks of one image; later masks cover earlier ones."""
    height, width, masks = json.loads(runs)
    labels = np.zeros((height, width), np.uint8, order="F")  # runs go down the columns
    try:
        for category, segmentation in masks:
            labels[_decode(segmentation, height, width)] = _FROM_459[category]
    except Exception as error:  # pycocotools has no exception of its own
        raise SampleError(
            f"a mask of {sample.name} in {sample.mask} cannot be decoded ({error}); move the file "
            "away and run gald data prepare pascal_context"
        ) from None
    return np.ascontiguousarray(labels)


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decode a mask from run lengths, compressed or as numbers, or from polygons."""
    from pycocotools import mask as coco

    if isinstance(segmentation, list):
        segmentation = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco.frPyObjects(segmentation, height, width)
    return coco.decode(segmentation).view(bool)
