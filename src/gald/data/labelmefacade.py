"""LabelMeFacade: 945 photographs of streets and houses from 73 places, 8 classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from gald.data.datamodule import DatasetDataModule
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.labels import VOID
from gald.data.pairs import pair
from gald.data.reading.mask import open_labels, read_colours
from gald.data.reading.png import LazyArray
from gald.data.reading.sample_error import SampleError

# name, colour in the masks of the owners; in the order of the train ids, ids begin with 1
_CLASSES = (
    ("building", (128, 0, 0)),
    ("car", (128, 0, 128)),
    ("door", (128, 128, 0)),
    ("pavement", (128, 128, 128)),
    ("road", (128, 64, 0)),
    ("sky", (0, 128, 128)),
    ("vegetation", (0, 128, 0)),
    ("window", (0, 0, 128)),
)
_VARIOUS = (0, 0, 0)  # everything else, void
_PLACES = {  # all other places are train
    "val": (
        "paris_static_street",
        "static_coast_palafrugel_outdoor_spain",
        "static_outdoor_street_city_gerona_spain",
        "static_outdoor_street_village_galicia_spain",
        "static_outdoor_urban_city_london_uk",
        "static_outdoor_urban_city_street_coruna_spain",
    ),
    "test": (
        "madrid_static_street",
        "static_bolivia_outdoor_city",
        "static_city_wuhan_china",
        "static_dartmouth_hanover_june_2006",
        "static_italy_city_outdoor",
        "static_madrid_outdoor_august_2005",
        "static_newyork_city_urban",
        "static_outdoor_bozeman_montana_usa",
        "static_outdoor_budapest_submitted_alyosha_efros",
        "static_outdoor_city_laredo_spain",
        "static_outdoor_italy_submitted_alyosha_efros",
        "static_outdoor_mallorca_spain",
        "static_outdoor_montana_usa",
        "static_outdoor_road_mallorca_spain",
        "static_outdoor_street_city_cambridge_uk",
        "static_outdoor_street_city_madrid_spain",
        "static_outdoor_street_village_benavente_leon_spain",
        "static_outdoor_street_village_puigpunyent_mallorca_spain",
        "static_outdoor_valladolid_street_spain",
        "static_palma_outdoor_august_2005",
        "static_palma_outdoor_august_2005_set2",
        "static_palma_outdoor_august_2005_set4",
        "static_sarasota_florida_2006",
        "static_street_outdoor_palma_mallorca_spain",
        "static_street_outdoor_palma_mallorca_spain_2007",
        "static_street_outdoor_pittsburgh_usa",
        "static_street_urban_mineapolis_minesota_usa",
        "static_submitted_konstantinos_september_2006",
        "static_submitted_nedovic_montenegro_january_2007",
        "static_vancouver_canada_outdoor_street",
        "static_village_outdoor_2005",
        "valladolid_static_street",
        "web_static_outdoor_street_freiberg_germany",
    ),
}
_SPLIT_OF = {place: split for split, places in _PLACES.items() for place in places}


class LabelMeFacade(SegmentationDataset):
    """Photographs of streets and houses from 73 places, 8 classes.

    The name of a file begins with its LabelMe folder, which is a place or a journey:
    `PLACE__PHOTOGRAPH.jpg`. Photographs of one place are not independent, so `data.groups` is the
    place.

    The split is ours, because the owners' 100 train and 845 test photographs share their places:
    590 train, 74 val and 281 test photographs from 34, 6 and 33 places. It follows from the name,
    by the lists in this file, wherever a file is. Places of one city or island are in one split, as
    far as the names show. Train has Boston, Barcelona, California and the collections of single
    photographs (`spatial_envelope`, `saxena`, `tinyimages`), test has Mallorca, Cambridge in
    England, Madrid and 22 smaller places. So test asks for other cities than those of train.
    Two thirds of the test photographs are from three places, so intervals over places are wide.

    Format: `images/*.jpg` with `labels/*.png`, the owners' colours of 16 bits per value, or with
    `masks/*.png`, which store 1 to 8 in the order of the classes and 0 or 255 for void; at any
    depth. The colour of "various" is void.

    Licence: images for non-commercial use and research experiments only; they are from LabelMe.
    Source: https://github.com/cvjena/labelmefacade.
    Citation: Froehlich, Rodner, Denzler, "A Fast Approach for Pixelwise Labeling of Facade Images",
    ICPR 2010.

    Args:
        root: folder with `images`, and `labels` or `masks`.
        split: `train`, `val`, `test`, or several joined by `+`, e.g. `train+val`.
    """

    title = "LabelMeFacade"
    name = "labelmefacade"
    url = "https://github.com/cvjena/labelmefacade"
    licence = "images for non-commercial use and research experiments only"
    required = (("images",), ("labels", "masks"))
    instructions = """\
{title} is not fetched by gald: no checksum is published to detect damaged or altered files
licence: {licence}
files:
  labelmefacade  113 MB  {url}  (a repository)
steps:
  1. git clone {url}
  2. mkdir -p {quoted_root} && mv labelmefacade/images labelmefacade/labels {quoted_root}
{root} then holds:
  images/*.jpg, the images
  labels/*.png, the labels
gald sorts them into train, val and test by place, without a list.
"""
    class_names = tuple(name for name, _ in _CLASSES)
    palette = tuple(colour for _, colour in _CLASSES)
    label_map: Mapping[int, int] = {0: VOID, VOID: VOID} | {i + 1: i for i in range(len(_CLASSES))}
    splits = ("train", "val", "test")
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (590,),
        "val": (74,),
        "test": (281,),
    }
    mask_depth = 16

    def list_samples(self, split: str) -> list[Sample]:
        """Pair all images and masks, and keep those of the split's places."""
        samples = pair(self.folder("images"), self.folder("masks", "labels"))
        return [sample for sample in samples if split_of(sample.name) == split]

    def open_labels(self, sample: Sample) -> LazyArray:
        """Open stored ids, or find the ids of stored colours."""
        coloured = self.folder("masks", "labels").name == "labels"
        return _ids(sample.mask) if coloured else open_labels(sample.mask)


def split_of(name: str) -> str:
    """Return the split of a photograph by its name, `PLACE__PHOTOGRAPH`."""
    return _SPLIT_OF.get(name.partition("__")[0], "train")


def _ids(path: Path) -> np.ndarray:
    """Read the ids (H, W) uint8 of a mask that stores colours.

    Raises:
        SampleError: a colour stands for no class.
    """
    colours = read_colours(path)
    ids = np.zeros(colours.shape[:2], np.uint8)
    for i, (_, colour) in enumerate(_CLASSES):
        ids[cv2.inRange(colours, colour, colour) > 0] = i + 1
    other = (ids == 0) & (colours != _VARIOUS).any(-1)
    if other.any():
        row, column = np.argwhere(other)[0]
        raise SampleError(
            f"mask {path} has colour {colours[row, column].tolist()} in row {row}, column "
            f"{column}, which is none of LabelMeFacade; copy the mask again"
        )
    return ids


class LabelMeFacadeDataModule(DatasetDataModule):
    """Data module of LabelMeFacade: trains on train, selects on val, reports test.

    Args:
        root: folder with `images`, and `labels` or `masks`.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = LabelMeFacade
