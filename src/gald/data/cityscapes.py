"""Cityscapes: street images of 2048x1024 pixels from 50 cities, 19 classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gald.data.datamodule import DatasetDataModule
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.labels import VOID
from gald.data.pairs import by_name, pair

# stored label, name, colour; in the order of the train ids
_CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)


class Cityscapes(SegmentationDataset):
    """Street images from a driving car, 19 classes; no city occurs in two splits.

    2975 train, 500 val and 1525 test images with fine labels, and 19998 more with coarse labels
    (`train_extra`). The labels of test are placeholders: the real ones are not public. Of the 34
    labels (and -1, the licence plate, which is 255 in a byte) 19 are classes, the others void.

    Format: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and
    `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`, for train_extra
    `gtCoarse/train_extra/CITY/*_gtCoarse_labelIds.png`; or the original zip in place of each
    folder: `leftImg8bit_trainvaltest.zip`, `gtFine_trainvaltest.zip`, `leftImg8bit_trainextra.zip`,
    `gtCoarse.zip`. Files of `labelTrainIds` are not read.

    Submission: one png per image, in any folder, with the size of the image, labels (not train
    ids) as values and a name that begins with CITY_SEQUENCE_FRAME, as described at the head of
    evalPixelLevelSemanticLabeling.py in cityscapesScripts 2.3.0, which the server uses too.

    Licence: non-commercial, after registration; neither the data nor changed versions of it may be
    passed on.
    Source: https://www.cityscapes-dataset.com; labels: cityscapesScripts, helpers/labels.py.
    Citation: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding",
    CVPR 2016.

    Args:
        root: folder with the folders or zips.
        split: `train`, `val`, `test`, `train_extra`, or several joined by `+`, e.g.
            `train+train_extra`.
    """

    title = "Cityscapes"
    name = "cityscapes"
    url = "https://www.cityscapes-dataset.com/downloads/"
    licence = (
        "non-commercial use after registration; neither the data nor changed versions of it may "
        "be passed on"
    )
    required = (
        ("leftImg8bit", "leftImg8bit_trainvaltest.zip"),
        ("gtFine", "gtFine_trainvaltest.zip"),
    )
    instructions = """\
{title} is not fetched by gald: its owners ask everyone to register
licence: {licence}
files:
  leftImg8bit_trainvaltest.zip   11 GB  {url}
  gtFine_trainvaltest.zip       241 MB  {url}
  leftImg8bit_trainextra.zip     44 GB  {url}  (only for coarse labels)
  gtCoarse.zip                  1.3 GB  {url}  (only for coarse labels)
steps:
  1. register at https://www.cityscapes-dataset.com/register/
  2. download in a browser, or with csDownload of the Python package cityscapesscripts
  3. put the zip files into {quoted_root}, as they are or extracted
{root} then holds:
  leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png, or leftImg8bit_trainvaltest.zip
  gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png, or gtFine_trainvaltest.zip
  for the coarse labels leftImg8bit/train_extra/ and gtCoarse/, or the two zip files
"""
    class_names = tuple(name for _, name, _ in _CLASSES)
    palette = tuple(colour for _, _, colour in _CLASSES)
    label_map: Mapping[int, int] = dict.fromkeys((*range(34), 255), VOID) | {
        label: train_id for train_id, (label, _, _) in enumerate(_CLASSES)
    }
    splits = ("train", "val", "test", "train_extra")
    # One image of train_extra, troisdorf_000000_000073, is broken and often removed.
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (2975,),
        "val": (500,),
        "test": (1525,),
        "train_extra": (19998, 19997),
    }
    submission_splits = ("test", "val")

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the images and masks of one split."""
        coarse = split == "train_extra"
        images, labels = f"leftImg8bit/{split}", f"{'gtCoarse' if coarse else 'gtFine'}/{split}"
        image_zip = f"leftImg8bit_{'trainextra' if coarse else 'trainvaltest'}.zip"
        label_zip = "gtCoarse.zip" if coarse else "gtFine_trainvaltest.zip"
        return pair(
            self.folder(images, f"{image_zip}/{images}"),
            self.folder(labels, f"{label_zip}/{labels}"),
            ("_leftImg8bit.png",),
            "_gtCoarse_labelIds.png" if coarse else "_gtFine_labelIds.png",
        )

    @classmethod
    def submission_name(cls, file: str) -> str:
        """Return the image name of a file: the server reads only CITY_SEQUENCE_FRAME."""
        stem, dot, ending = file.rpartition("/")[2].rpartition(".")
        return "_".join(stem.split("_")[:3]) + dot + ending

    def list_images(self, split: str) -> dict[str, Path]:
        """List the images of val or test by CITY_SEQUENCE_FRAME."""
        images = f"leftImg8bit/{split}"
        place = self.folder(images, f"leftImg8bit_trainvaltest.zip/{images}")
        return by_name(place, ("_leftImg8bit.png",))


class CityscapesDataModule(DatasetDataModule):
    """Data module of Cityscapes: trains on train, selects and reports on val.

    Args:
        root: folder with the folders or zips.
        train_split: `train`; `train+train_extra` adds the coarse labels, `train+val` the other fine
            labels for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = Cityscapes
    has_test = False
