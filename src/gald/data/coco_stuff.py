"""COCO-Stuff, 10k and 164k editions: everyday photographs, 80 thing and 91 stuff classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from gald.data.datamodule import DatasetDataModule
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.labels import VOID
from gald.data.pairs import by_name, pair, reject
from gald.data.reading.listing import read_lines
from gald.data.reading.mat import read_mat
from gald.data.reading.sample_error import SampleError

# label, name, colour; in the order of the train ids. The colours are those of mmsegmentation: the
# 171 classes share 162 colours, and handbag has the colour of void.
_CLASSES = (
    (1, "person", (0, 192, 64)),
    (2, "bicycle", (0, 192, 64)),
    (3, "car", (0, 64, 96)),
    (4, "motorcycle", (128, 192, 192)),
    (5, "airplane", (0, 64, 64)),
    (6, "bus", (0, 192, 224)),
    (7, "train", (0, 192, 192)),
    (8, "truck", (128, 192, 64)),
    (9, "boat", (0, 192, 96)),
    (10, "traffic light", (128, 192, 64)),
    (11, "fire hydrant", (128, 32, 192)),
    (13, "stop sign", (0, 0, 224)),
    (14, "parking meter", (0, 0, 64)),
    (15, "bench", (0, 160, 192)),
    (16, "bird", (128, 0, 96)),
    (17, "cat", (128, 0, 192)),
    (18, "dog", (0, 32, 192)),
    (19, "horse", (128, 128, 224)),
    (20, "sheep", (0, 0, 192)),
    (21, "cow", (128, 160, 192)),
    (22, "elephant", (128, 128, 0)),
    (23, "bear", (128, 0, 32)),
    (24, "zebra", (128, 32, 0)),
    (25, "giraffe", (128, 0, 128)),
    (27, "backpack", (64, 128, 32)),
    (28, "umbrella", (0, 160, 0)),
    (31, "handbag", (0, 0, 0)),
    (32, "tie", (192, 128, 160)),
    (33, "suitcase", (0, 32, 0)),
    (34, "frisbee", (0, 128, 128)),
    (35, "skis", (64, 128, 160)),
    (36, "snowboard", (128, 160, 0)),
    (37, "sports ball", (0, 128, 0)),
    (38, "kite", (192, 128, 32)),
    (39, "baseball bat", (128, 96, 128)),
    (40, "baseball glove", (0, 0, 128)),
    (41, "skateboard", (64, 0, 32)),
    (42, "surfboard", (0, 224, 128)),
    (43, "tennis racket", (128, 0, 0)),
    (44, "bottle", (192, 0, 160)),
    (46, "wine glass", (0, 96, 128)),
    (47, "cup", (128, 128, 128)),
    (48, "fork", (64, 0, 160)),
    (49, "knife", (128, 224, 128)),
    (50, "spoon", (128, 128, 64)),
    (51, "bowl", (192, 0, 32)),
    (52, "banana", (128, 96, 0)),
    (53, "apple", (128, 0, 192)),
    (54, "sandwich", (0, 128, 32)),
    (55, "orange", (64, 224, 0)),
    (56, "broccoli", (0, 0, 64)),
    (57, "carrot", (128, 128, 160)),
    (58, "hot dog", (64, 96, 0)),
    (59, "pizza", (0, 128, 192)),
    (60, "donut", (0, 128, 160)),
    (61, "cake", (192, 224, 0)),
    (62, "chair", (0, 128, 64)),
    (63, "couch", (128, 128, 32)),
    (64, "potted plant", (192, 32, 128)),
    (65, "bed", (0, 64, 192)),
    (67, "dining table", (0, 0, 32)),
    (70, "toilet", (64, 160, 128)),
    (72, "tv", (128, 64, 64)),
    (73, "laptop", (128, 0, 160)),
    (74, "mouse", (64, 32, 128)),
    (75, "remote", (128, 192, 192)),
    (76, "keyboard", (0, 0, 160)),
    (77, "cell phone", (192, 160, 128)),
    (78, "microwave", (128, 192, 0)),
    (79, "oven", (128, 0, 96)),
    (80, "toaster", (192, 32, 0)),
    (81, "sink", (128, 64, 128)),
    (82, "refrigerator", (64, 128, 96)),
    (84, "book", (64, 160, 0)),
    (85, "clock", (0, 64, 0)),
    (86, "vase", (192, 128, 224)),
    (87, "scissors", (64, 32, 0)),
    (88, "teddy bear", (0, 192, 128)),
    (89, "hair drier", (64, 128, 224)),
    (90, "toothbrush", (192, 160, 0)),
    (92, "banner", (0, 192, 0)),
    (93, "blanket", (192, 128, 96)),
    (94, "branch", (192, 96, 128)),
    (95, "bridge", (0, 64, 128)),
    (96, "building-other", (64, 0, 96)),
    (97, "bush", (64, 224, 128)),
    (98, "cabinet", (128, 64, 0)),
    (99, "cage", (192, 0, 224)),
    (100, "cardboard", (64, 96, 128)),
    (101, "carpet", (128, 192, 128)),
    (102, "ceiling-other", (64, 0, 224)),
    (103, "ceiling-tile", (192, 224, 128)),
    (104, "cloth", (128, 192, 64)),
    (105, "clothes", (192, 0, 96)),
    (106, "clouds", (192, 96, 0)),
    (107, "counter", (128, 64, 192)),
    (108, "cupboard", (0, 128, 96)),
    (109, "curtain", (0, 224, 0)),
    (110, "desk-stuff", (64, 64, 64)),
    (111, "dirt", (128, 128, 224)),
    (112, "door-stuff", (0, 96, 0)),
    (113, "fence", (64, 192, 192)),
    (114, "floor-marble", (0, 128, 224)),
    (115, "floor-other", (128, 224, 0)),
    (116, "floor-stone", (64, 192, 64)),
    (117, "floor-tile", (128, 128, 96)),
    (118, "floor-wood", (128, 32, 128)),
    (119, "flower", (64, 0, 192)),
    (120, "fog", (0, 64, 96)),
    (121, "food-other", (0, 160, 128)),
    (122, "fruit", (192, 0, 64)),
    (123, "furniture-other", (128, 64, 224)),
    (124, "grass", (0, 32, 128)),
    (125, "gravel", (192, 128, 192)),
    (126, "ground-other", (0, 64, 224)),
    (127, "hill", (128, 160, 128)),
    (128, "house", (192, 128, 0)),
    (129, "leaves", (128, 64, 32)),
    (130, "light", (128, 32, 64)),
    (131, "mat", (192, 0, 128)),
    (132, "metal", (64, 192, 32)),
    (133, "mirror-stuff", (0, 160, 64)),
    (134, "moss", (64, 0, 0)),
    (135, "mountain", (192, 192, 160)),
    (136, "mud", (0, 32, 64)),
    (137, "napkin", (64, 128, 128)),
    (138, "net", (64, 192, 160)),
    (139, "paper", (128, 160, 64)),
    (140, "pavement", (64, 128, 0)),
    (141, "pillow", (192, 192, 32)),
    (142, "plant-other", (128, 96, 192)),
    (143, "plastic", (64, 0, 128)),
    (144, "platform", (64, 64, 32)),
    (145, "playingfield", (0, 224, 192)),
    (146, "railing", (192, 0, 0)),
    (147, "railroad", (192, 64, 160)),
    (148, "river", (0, 96, 192)),
    (149, "road", (192, 128, 128)),
    (150, "rock", (64, 64, 160)),
    (151, "roof", (128, 224, 192)),
    (152, "rug", (192, 128, 64)),
    (153, "salad", (192, 64, 32)),
    (154, "sand", (128, 96, 64)),
    (155, "sea", (192, 0, 192)),
    (156, "shelf", (0, 192, 32)),
    (157, "sky-other", (64, 224, 64)),
    (158, "skyscraper", (64, 0, 64)),
    (159, "snow", (128, 192, 160)),
    (160, "solid-other", (64, 96, 64)),
    (161, "stairs", (64, 128, 192)),
    (162, "stone", (0, 192, 160)),
    (163, "straw", (192, 224, 64)),
    (164, "structural-other", (64, 128, 64)),
    (165, "table", (128, 192, 32)),
    (166, "tent", (192, 32, 192)),
    (167, "textile-other", (64, 64, 192)),
    (168, "towel", (0, 64, 32)),
    (169, "tree", (64, 160, 192)),
    (170, "vegetable", (192, 64, 64)),
    (171, "wall-brick", (128, 64, 160)),
    (172, "wall-concrete", (64, 32, 192)),
    (173, "wall-other", (192, 192, 192)),
    (174, "wall-panel", (0, 64, 160)),
    (175, "wall-stone", (192, 160, 192)),
    (176, "wall-tile", (192, 192, 0)),
    (177, "wall-wood", (128, 64, 96)),
    (178, "water-other", (192, 32, 64)),
    (179, "waterdrops", (192, 64, 128)),
    (180, "window-blind", (64, 192, 96)),
    (181, "window-other", (64, 160, 64)),
    (182, "wood", (64, 64, 0)),
)
_LABELS = {label: train_id for train_id, (label, _, _) in enumerate(_CLASSES)}
# things that COCO names but never annotated
_UNUSED = set(range(1, 183)) - set(_LABELS)
_V1_1 = "cocostuff-10k-v1.1"  # name of the zip and of the folder in it
_LAST_V1_0 = 172  # largest label of version 1.0
_CHECKED_MASKS = 100  # at most, to recognise version 1.0
_IS_V1_0 = (
    "is version 1.0 of COCO-Stuff 10k, with other labels (1 unlabeled, 2..81 things, 82..172 "
    "stuff); get cocostuff-10k-v1.1.zip, see gald data prepare coco_stuff"
)


class CocoStuff(SegmentationDataset):
    """Classes of both editions.

    Labels 1..91 are things and 92..182 stuff. Label 0 (unlabeled) is void, and so are 11 things
    that were never annotated.

    Licence: annotations CC BY 4.0; images under Flickr's terms of use.
    Source: https://github.com/nightrome/cocostuff, labels.txt; colours: mmsegmentation.
    Citation: Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context",
    CVPR 2018.
    """

    licence = "annotations CC BY 4.0; images under Flickr's terms of use"
    class_names = tuple(name for _, name, _ in _CLASSES)
    palette = tuple(colour for _, _, colour in _CLASSES)
    follows_tags = False


class CocoStuff10k(CocoStuff):
    """COCO-Stuff 10k v1.1: 9000 train and 1000 test images of COCO's train2014.

    The split `val` is the official test list: models are selected and reported on it, as is usual
    for this dataset. Masks are the key `S` of MATLAB files and store the labels unchanged.

    Version 1.0 has the same files with other labels and is refused. It is recognised by the name of
    `root` or of its zip, and by its labels: only v1.1 has label 0 or labels above 172, and only
    v1.0 has the 11 things that v1.1 leaves out. The first mask with such a label decides. If none
    of the first 100 masks has one, v1.1 is assumed.

    Format: `images/*.jpg`, `annotations/*.mat` and `imageLists/{train,test}.txt` with one name per
    line, in `root` or in `cocostuff-10k-v1.1.zip`, with or without a folder of that name around
    them; `root` may also be that zip.

    Submission: we know of no evaluation server for this edition, and its test labels are public.
    `gald submit` writes files for an evaluation elsewhere: the labels 1..182 as png, with the size
    and the name of each image of the test list.

    Licence, source, citation: see `CocoStuff`; https://github.com/nightrome/cocostuff10k.

    Args:
        root: folder of the dataset, or its zip.
        split: `train`, `val` or `train+val`.
    """

    title = "COCO-Stuff 10k"
    name = "coco_stuff"
    url = (
        "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip"
    )
    required = tuple((part, f"{_V1_1}.zip") for part in ("images", "annotations", "imageLists"))
    instructions = """\
{title} is not fetched by gald: no checksum is published to detect damaged or altered files
licence: {licence}
files:
  cocostuff-10k-v1.1.zip  2.0 GB  {url}
steps:
  1. download in a browser, or with wget -c
  2. put the zip files into {quoted_root}, as they are or extracted
{root} then holds:
  images/COCO_train2014_*.jpg, or cocostuff-10k-v1.1.zip for this and the next two
  annotations/COCO_train2014_*.mat
  imageLists/{train,test,all}.txt
"""
    label_map: Mapping[int, int] = dict.fromkeys((0, *_UNUSED), VOID) | _LABELS
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {"train": (9000,), "val": (1000,)}
    submission_splits = ("val",)

    def list_samples(self, split: str) -> list[Sample]:
        """Read the list of the split."""
        if "v1.0" in self.root.name:
            raise SampleError(f"{self.root} {_IS_V1_0}")
        images, masks = map(self._folder, ("images", "annotations"))
        listing, names = self._listed(split)
        image_of, mask_of = by_name(images, (".jpg",)), by_name(masks, (".mat",))
        samples = []
        for name in names:
            if name not in image_of:
                reject(
                    f"{listing} names {name}, but {images} has no {name}.jpg; "
                    "restore the image or delete the line"
                )
            elif name not in mask_of:
                reject(
                    f"image {image_of[name]} has no mask {name}.mat in {masks}; "
                    f"restore the mask or delete {name} from {listing}"
                )
            else:
                samples.append(Sample(name, image_of[name], mask_of[name]))
        self._refuse_v1_0(samples)
        return samples

    def list_images(self, split: str) -> dict[str, Path]:
        """Read the list of the split, without masks."""
        images = self._folder("images")
        image_of = by_name(images, (".jpg",))
        listing, names = self._listed(split)
        for name in names:
            if name not in image_of:
                raise SampleError(
                    f"{listing} names {name}, but {images} has no {name}.jpg; restore the image"
                )
        return {name: image_of[name] for name in names}

    def open_labels(self, sample: Sample) -> np.ndarray:
        """Read the label map of a MATLAB file."""
        return read_mat(sample.mask, "S", largest=182).astype(np.uint8)

    def missing(self, places: str) -> FileNotFoundError:
        """Return an error that names version 1.0 if only that is there."""
        for old in self.root.glob("cocostuff*v1.0*"):
            return FileNotFoundError(f"{old} {_IS_V1_0}")
        return super().missing(places)

    def _folder(self, name: str) -> Path:
        tops = ("", f"{_V1_1}/", f"{_V1_1}.zip/", f"{_V1_1}.zip/{_V1_1}/")
        return self.folder(*(f"{place}{name}" for place in tops))

    def _listed(self, split: str) -> tuple[Path, list[str]]:
        listing = self._folder("imageLists") / ("test.txt" if split == "val" else f"{split}.txt")
        return listing, [name for line in read_lines(listing) for name in line.split()]

    def _refuse_v1_0(self, samples: list[Sample]) -> None:
        for sample in samples[:_CHECKED_MASKS]:
            try:
                labels = set(np.unique(self.read_labels(sample)).tolist())
            except SampleError:
                continue  # reported when the sample is loaded
            if 0 in labels or max(labels) > _LAST_V1_0:
                return
            for label in labels & _UNUSED:
                reject(f"mask {sample.mask} has label {label}, so it {_IS_V1_0}")
                return


class CocoStuff164k(CocoStuff):
    """COCO-Stuff on all of COCO 2017: 118287 train and 5000 val images.

    Masks store the label minus 1, and 255 where unlabeled.

    Format: images in `images/{train,val}2017/*.jpg`, in `{train,val}2017/*.jpg` or in
    `train2017.zip` and `val2017.zip`; masks in `annotations/{train,val}2017/*.png`, in the same
    folders below `stuffthingmaps/` or `stuffthingmaps_trainval2017/`, or in
    `stuffthingmaps_trainval2017.zip`. The `*_labelTrainIds.png` that mmsegmentation writes beside
    the masks are not read.

    Licence, source, citation: see `CocoStuff`.

    Args:
        root: folder with the folders or zips.
        split: `train`, `val` or `train+val`.
    """

    title = "COCO-Stuff 164k"
    name = "coco_stuff_164k"
    url = (
        "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
        "stuffthingmaps_trainval2017.zip"
    )
    required = (
        ("images/train2017", "train2017.zip"),
        ("images/val2017", "val2017.zip"),
        ("annotations/train2017", "stuffthingmaps_trainval2017.zip"),
        ("annotations/val2017", "stuffthingmaps_trainval2017.zip"),
    )
    instructions = """\
{title} is not fetched by gald: no checksum is published to detect damaged or altered files
licence: {licence}
files:
  train2017.zip                     18 GB  http://images.cocodataset.org/zips/train2017.zip
  val2017.zip                        1 GB  http://images.cocodataset.org/zips/val2017.zip
  stuffthingmaps_trainval2017.zip  659 MB  {url}
steps:
  1. download in a browser, or with wget -c
  2. put the zip files into {quoted_root}, as they are or extracted \
(train2017.zip and val2017.zip in images/, the labels in annotations/)
{root} then holds:
  images/train2017/*.jpg, or train2017.zip
  images/val2017/*.jpg, or val2017.zip
  annotations/{train,val}2017/*.png, or stuffthingmaps_trainval2017.zip
"""
    label_map: Mapping[int, int] = dict.fromkeys((255, *(label - 1 for label in _UNUSED)), VOID) | {
        label - 1: train_id for label, train_id in _LABELS.items()
    }
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {"train": (118287,), "val": (5000,)}

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the images and masks of one split."""
        year, maps = f"{split}2017", "stuffthingmaps_trainval2017"
        return pair(
            self.folder(f"images/{year}", year, f"{year}.zip/{year}"),
            self.folder(
                f"annotations/{year}",
                f"stuffthingmaps/{year}",
                f"{maps}/{year}",
                f"{maps}.zip/{year}",
            ),
            (".jpg",),
        )


class CocoStuff10kDataModule(DatasetDataModule):
    """Data module of COCO-Stuff 10k: trains on train, selects and reports on the test list.

    Args:
        root: folder of the dataset, or its zip.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = CocoStuff10k
    has_test = False


class CocoStuff164kDataModule(DatasetDataModule):
    """Data module of COCO-Stuff 164k: trains on train, selects and reports on val.

    Args:
        root: folder with the folders or zips.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = CocoStuff164k
    has_test = False
