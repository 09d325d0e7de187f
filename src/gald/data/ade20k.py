"""ADE20K with the 150 classes of the Scene Parsing Benchmark 2016."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gald.data.datamodule import DatasetDataModule
from gald.data.dataset import Sample, SegmentationDataset
from gald.data.downloads import Download
from gald.data.labels import VOID
from gald.data.pairs import by_name, pair

# name, colour; the masks store the classes as 1..150 in this order
_CLASSES = (
    ("wall", (120, 120, 120)),
    ("building", (180, 120, 120)),
    ("sky", (6, 230, 230)),
    ("floor", (80, 50, 50)),
    ("tree", (4, 200, 3)),
    ("ceiling", (120, 120, 80)),
    ("road", (140, 140, 140)),
    ("bed", (204, 5, 255)),
    ("windowpane", (230, 230, 230)),
    ("grass", (4, 250, 7)),
    ("cabinet", (224, 5, 255)),
    ("sidewalk", (235, 255, 7)),
    ("person", (150, 5, 61)),
    ("earth", (120, 120, 70)),
    ("door", (8, 255, 51)),
    ("table", (255, 6, 82)),
    ("mountain", (143, 255, 140)),
    ("plant", (204, 255, 4)),
    ("curtain", (255, 51, 7)),
    ("chair", (204, 70, 3)),
    ("car", (0, 102, 200)),
    ("water", (61, 230, 250)),
    ("painting", (255, 6, 51)),
    ("sofa", (11, 102, 255)),
    ("shelf", (255, 7, 71)),
    ("house", (255, 9, 224)),
    ("sea", (9, 7, 230)),
    ("mirror", (220, 220, 220)),
    ("rug", (255, 9, 92)),
    ("field", (112, 9, 255)),
    ("armchair", (8, 255, 214)),
    ("seat", (7, 255, 224)),
    ("fence", (255, 184, 6)),
    ("desk", (10, 255, 71)),
    ("rock", (255, 41, 10)),
    ("wardrobe", (7, 255, 255)),
    ("lamp", (224, 255, 8)),
    ("bathtub", (102, 8, 255)),
    ("railing", (255, 61, 6)),
    ("cushion", (255, 194, 7)),
    ("base", (255, 122, 8)),
    ("box", (0, 255, 20)),
    ("column", (255, 8, 41)),
    ("signboard", (255, 5, 153)),
    ("chest of drawers", (6, 51, 255)),
    ("counter", (235, 12, 255)),
    ("sand", (160, 150, 20)),
    ("sink", (0, 163, 255)),
    ("skyscraper", (140, 140, 140)),
    ("fireplace", (250, 10, 15)),
    ("refrigerator", (20, 255, 0)),
    ("grandstand", (31, 255, 0)),
    ("path", (255, 31, 0)),
    ("stairs", (255, 224, 0)),
    ("runway", (153, 255, 0)),
    ("case", (0, 0, 255)),
    ("pool table", (255, 71, 0)),
    ("pillow", (0, 235, 255)),
    ("screen door", (0, 173, 255)),
    ("stairway", (31, 0, 255)),
    ("river", (11, 200, 200)),
    ("bridge", (255, 82, 0)),
    ("bookcase", (0, 255, 245)),
    ("blind", (0, 61, 255)),
    ("coffee table", (0, 255, 112)),
    ("toilet", (0, 255, 133)),
    ("flower", (255, 0, 0)),
    ("book", (255, 163, 0)),
    ("hill", (255, 102, 0)),
    ("bench", (194, 255, 0)),
    ("countertop", (0, 143, 255)),
    ("stove", (51, 255, 0)),
    ("palm", (0, 82, 255)),
    ("kitchen island", (0, 255, 41)),
    ("computer", (0, 255, 173)),
    ("swivel chair", (10, 0, 255)),
    ("boat", (173, 255, 0)),
    ("bar", (0, 255, 153)),
    ("arcade machine", (255, 92, 0)),
    ("hovel", (255, 0, 255)),
    ("bus", (255, 0, 245)),
    ("towel", (255, 0, 102)),
    ("light", (255, 173, 0)),
    ("truck", (255, 0, 20)),
    ("tower", (255, 184, 184)),
    ("chandelier", (0, 31, 255)),
    ("awning", (0, 255, 61)),
    ("streetlight", (0, 71, 255)),
    ("booth", (255, 0, 204)),
    ("television receiver", (0, 255, 194)),
    ("airplane", (0, 255, 82)),
    ("dirt track", (0, 10, 255)),
    ("apparel", (0, 112, 255)),
    ("pole", (51, 0, 255)),
    ("land", (0, 194, 255)),
    ("bannister", (0, 122, 255)),
    ("escalator", (0, 255, 163)),
    ("ottoman", (255, 153, 0)),
    ("bottle", (0, 255, 10)),
    ("buffet", (255, 112, 0)),
    ("poster", (143, 255, 0)),
    ("stage", (82, 0, 255)),
    ("van", (163, 255, 0)),
    ("ship", (255, 235, 0)),
    ("fountain", (8, 184, 170)),
    ("conveyer belt", (133, 0, 255)),
    ("canopy", (0, 255, 92)),
    ("washer", (184, 0, 255)),
    ("plaything", (255, 0, 31)),
    ("swimming pool", (0, 184, 255)),
    ("stool", (0, 214, 255)),
    ("barrel", (255, 0, 112)),
    ("basket", (92, 255, 0)),
    ("waterfall", (0, 224, 255)),
    ("tent", (112, 224, 255)),
    ("bag", (70, 184, 160)),
    ("minibike", (163, 0, 255)),
    ("cradle", (153, 0, 255)),
    ("oven", (71, 255, 0)),
    ("ball", (255, 0, 163)),
    ("food", (255, 204, 0)),
    ("step", (255, 0, 143)),
    ("tank", (0, 255, 235)),
    ("trade name", (133, 255, 0)),
    ("microwave", (255, 0, 235)),
    ("pot", (245, 0, 255)),
    ("animal", (255, 0, 122)),
    ("bicycle", (255, 245, 0)),
    ("lake", (10, 190, 212)),
    ("dishwasher", (214, 255, 0)),
    ("screen", (0, 204, 255)),
    ("blanket", (20, 0, 255)),
    ("sculpture", (255, 255, 0)),
    ("hood", (0, 153, 255)),
    ("sconce", (0, 41, 255)),
    ("vase", (0, 255, 204)),
    ("traffic light", (41, 0, 255)),
    ("tray", (41, 255, 0)),
    ("ashcan", (173, 0, 255)),
    ("fan", (0, 245, 255)),
    ("pier", (71, 0, 255)),
    ("crt screen", (122, 0, 255)),
    ("plate", (0, 255, 184)),
    ("monitor", (0, 92, 255)),
    ("bulletin board", (184, 255, 0)),
    ("shower", (0, 133, 255)),
    ("radiator", (255, 214, 0)),
    ("glass", (25, 194, 194)),
    ("clock", (102, 255, 0)),
    ("flag", (92, 0, 255)),
)
_TOP = "ADEChallengeData2016"
_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(SegmentationDataset):
    """Indoor and outdoor images of many sizes, 150 classes.

    20210 train and 2000 val images, some of them grey. Label 0, "other", is void. The test images
    have no public labels.

    Format: `images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`,
    in `root`, in `ADEChallengeData2016` or in `ADEChallengeData2016.zip`; `root` may also be that
    zip.

    Submission: a zip with one png per test image, with the image's name, as the README of
    CSAILVision/sceneparsing describes it. The README does not specify more. Here each png has the
    size of its image and the stored labels 1..150, like the masks and the official evaluation. The
    test images come as `release_test.zip` and are searched in `release_test/testing` and
    `images/testing`, beside `images` or in `root`. Their number is not checked: the README
    announces 2000, but predates their release.

    Licence: images for non-commercial research and education only.
    Source: https://github.com/CSAILVision/sceneparsing, objectInfo150.txt and color150.mat; names
    from https://github.com/CSAILVision/semantic-segmentation-pytorch, only the first synonym.
    Citation: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.

    Args:
        root: folder of the dataset, or its zip.
        split: `train`, `val` or `train+val`.
    """

    title = "ADE20K"
    name = "ade20k"
    url = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    licence = "images for non-commercial research and education only"
    downloads = (
        Download(
            "ADEChallengeData2016.zip",
            url,
            "923 MB",
            "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
        ),
    )
    required = (("ADEChallengeData2016", "ADEChallengeData2016.zip"),)
    class_names = tuple(name for name, _ in _CLASSES)
    palette = tuple(colour for _, colour in _CLASSES)
    label_map: Mapping[int, int] = {0: VOID} | {i + 1: i for i in range(150)}
    published_counts: ClassVar[dict[str, tuple[int, ...]]] = {"train": (20210,), "val": (2000,)}
    submission_splits = ("test", "val")
    follows_tags = False

    def list_samples(self, split: str) -> list[Sample]:
        """Pair the images and masks of one split."""
        images, masks = f"images/{_FOLDERS[split]}", f"annotations/{_FOLDERS[split]}"
        tops = ("", f"{_TOP}/", f"{_TOP}.zip/{_TOP}/")
        return pair(
            self.folder(*(f"{top}{images}" for top in tops)),
            self.folder(*(f"{top}{masks}" for top in tops)),
            (".jpg",),
        )

    def list_images(self, split: str) -> dict[str, Path]:
        """List the images of val or test; the test images have their own archive."""
        places = ["images/validation"]
        if split == "test":
            places = ["release_test/testing", "release_test.zip/release_test/testing"]
            places += ["images/testing"]
        tops = ("", f"{_TOP}/", f"{_TOP}.zip/{_TOP}/")
        return by_name(
            self.folder(*(f"{top}{place}" for top in tops for place in places)), (".jpg",)
        )


class ADE20KDataModule(DatasetDataModule):
    """Data module of ADE20K: trains on train, selects and reports on val.

    Args:
        root: folder of the dataset, or its zip.
        train_split: `train`, or `train+val` for a final training after model selection.
        groups: see `DatasetDataModule`.
        loading: see `SegmentationDataModule`.
    """

    dataset_class = ADE20K
    has_test = False
