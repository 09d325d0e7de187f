"""Toy twins: a few random images in the exact on-disk layout of each dataset.

Each function writes one dataset into the folder `root` and returns the folder.
"""

import json
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco
from scipy.io import savemat

HEIGHT, WIDTH = 24, 32


def sample(rng, labels):
    """Return a random image and a label map with patches of all given labels."""
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    patches = rng.choice(np.asarray(labels), (HEIGHT // 2, WIDTH // 2))
    # every label at least once, if there are enough patches
    patches.ravel()[: min(len(labels), patches.size)] = labels[: patches.size]
    mask = np.kron(patches, np.ones((2, 2), patches.dtype))
    return image, mask


def write_image(path, image):
    """Write RGB pixels in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_labels(path, mask):
    """Write an 8-bit grey png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask.astype(np.uint8))


def pack(folder, archive, inside=""):
    """Move a folder's content into a zip, below the folder `inside` of it."""
    parts = Path(inside).parts
    if parts:
        outer = folder.with_name(f"{folder.name}.packing")
        outer.joinpath(*parts[:-1]).mkdir(parents=True)
        folder.rename(outer.joinpath(*parts))
        folder = outer
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    shutil.rmtree(folder)


def camvid(root, suffix=".png", lists="{folder}/{name}"):
    """Write 7 train, 3 val and 2 test samples, with lists unless `lists` is None."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3), ("test", 2)):
        lines = []
        for i in range(count):
            image, mask = sample(rng, range(12))
            names = f"{split}_{i:02d}{suffix}", f"{split}_{i:02d}.png"
            write_image(root / split / names[0], image)
            write_labels(root / f"{split}annot" / names[1], mask)
            if lists is not None:
                columns = zip((split, f"{split}annot"), names, strict=True)
                lines.append(" ".join(lists.format(folder=f, name=n) for f, n in columns))
        if lists is not None:
            (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


# Some labels of Pascal Context: among the 459, in alphabetical order, in the order of VOC.
PASCAL_CONTEXT = (
    (0, 0, 0),
    (1, 0, 0),  # accordion, which is not one of the 59
    (2, 1, 1),
    (9, 2, 21),
    (19, 4, 52),
    (23, 6, 2),
    (284, 37, 15),
    (355, 46, 44),
    (397, 50, 11),
    (459, 0, 0),
    (458, 59, 59),
)


def pascal_context(root, source="json"):
    """Write 6 train and 3 val samples with labels as `json`, `png`, `png_voc_first` or `mat`."""
    rng = np.random.default_rng(0)
    voc = root / "VOCdevkit" / "VOC2010"
    ids, alphabetical, voc_first = np.array(PASCAL_CONTEXT).T
    images, annotations, lists = [], [], {"train": [], "val": []}
    for i in range(9):
        phase, name = "train" if i < 6 else "val", f"2008_{i:06d}"
        image, places = sample(rng, range(len(ids)))
        lists[phase].append(name)
        write_image(voc / "JPEGImages" / f"{name}.jpg", image)
        if source == "png":
            write_labels(voc / "SegmentationClassContext" / f"{name}.png", alphabetical[places])
        elif source == "png_voc_first":
            write_labels(root / "59_context_labels" / f"{name}.png", voc_first[places])
        elif source == "mat":
            (root / "trainval").mkdir(exist_ok=True)
            savemat(root / "trainval" / f"{name}.mat", {"LabelMap": ids[places].astype(np.uint16)})
        number = int(name.replace("_", ""))
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"image_id": number, "file_name": f"{name}.jpg", "phase": phase} | size)
        # first a tree in the whole image, covered by the other masks
        masks = [(420, places >= 0)] + [(int(ids[k]), places == k) for k in range(len(ids))]
        for category, mask in masks:
            runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            runs["counts"] = runs["counts"].decode()
            common = {"image_id": number, "category_id": category, "segmentation": runs}
            common |= {"iscrowd": 0, "id": len(annotations), "parts": [{"segmentation": runs}]}
            annotations.append(common)
    if source == "json":
        content = {"images": images, "annos_segmentation": annotations}
        content |= {"categories": [{"category_id": 2, "name": "aeroplane"}], "annos_boundary": []}
        (root / "trainval_merged.json").write_text(json.dumps(content))
    else:
        folder = voc / "ImageSets" / ("SegmentationContext" if source == "png" else "Main")
        folder.mkdir(parents=True)
        for phase, names in lists.items():
            (folder / f"{phase}.txt").write_text("\n".join(names) + "\n")
    return root


def cityscapes(root, zipped=False):
    """Write 6 train, 3 val, 2 test and 4 coarse train_extra samples, and files to be ignored."""
    rng = np.random.default_rng(0)
    fine = "gtFine", "leftImg8bit_trainvaltest", "gtFine_trainvaltest"
    coarse = "gtCoarse", "leftImg8bit_trainextra", "gtCoarse"
    for part, count, (kind, *archives) in (
        ("train", 6, fine),
        ("val", 3, fine),
        ("test", 2, fine),
        ("train_extra", 4, coarse),
    ):
        places = (root / archive if zipped else root for archive in archives)
        images, labels = (p / k / part for p, k in zip(places, ("leftImg8bit", kind), strict=True))
        for i in range(count):
            city = f"{part.replace('_', '')}burg{i % 2}"
            name = f"{city}_{i:06d}_000019"
            image, mask = sample(rng, range(4 if part == "test" else 34))
            write_image(images / city / f"{name}_leftImg8bit.png", image)
            write_labels(labels / city / f"{name}_{kind}_labelIds.png", mask)
            write_labels(labels / city / f"{name}_{kind}_labelTrainIds.png", 0 * mask)
            write_image(labels / city / f"{name}_{kind}_color.png", image)
    if zipped:
        for folder in sorted(root.iterdir()):
            pack(folder, root / f"{folder.name}.zip")
    return root


def _two_sizes(i, image, mask):
    """Crop every second sample."""
    return (image[:-2, :-4], mask[:-2, :-4]) if i % 2 else (image, mask)


def ade20k(root, zipped=False):
    """Write 6 train and 3 val samples of two sizes, the first one grey."""
    rng = np.random.default_rng(0)
    top = root / "ADEChallengeData2016"
    for part, count in (("train", 6), ("val", 3)):
        folder = "training" if part == "train" else "validation"
        for i in range(count):
            image, mask = _two_sizes(i, *sample(rng, range(151)))
            name = f"ADE_{part}_{i + 1:08d}"
            write_image(top / "images" / folder / f"{name}.jpg", image)
            write_labels(top / "annotations" / folder / f"{name}.png", mask)
    grey = top / "images" / "training" / "ADE_train_00000001.jpg"
    assert cv2.imwrite(str(grey), cv2.imread(str(grey), cv2.IMREAD_GRAYSCALE))
    if zipped:
        pack(top, root / "ADEChallengeData2016.zip", "ADEChallengeData2016")
    return root


NEVER_ANNOTATED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
COCO_STUFF = tuple(i for i in range(183) if i not in NEVER_ANNOTATED)


def coco_stuff_10k(root, zipped=False, labels=COCO_STUFF):
    """Write 6 train and 3 test samples of two sizes like v1.1, or like v1.0 with its labels."""
    rng = np.random.default_rng(0)
    folder = root / "cocostuff-10k-v1.1" if zipped else root
    names = [f"COCO_train2014_{i:012d}" for i in range(9)]
    for i, name in enumerate(names):
        image, mask = _two_sizes(i, *sample(rng, labels))
        write_image(folder / "images" / f"{name}.jpg", image)
        (folder / "annotations").mkdir(exist_ok=True)
        content = {"S": mask.astype(np.uint16), "captions": np.array(["a"], object)}
        savemat(folder / "annotations" / f"{name}.mat", content, do_compression=True)
    (folder / "imageLists").mkdir()
    for part, listed in (("train", names[:6]), ("test", names[6:]), ("all", names)):
        (folder / "imageLists" / f"{part}.txt").write_text("\n".join(listed) + "\n")
    if zipped:
        pack(folder, root / "cocostuff-10k-v1.1.zip")
    return root


def coco_stuff_164k(root, zipped=False):
    """Write 6 train and 3 val samples of two sizes, and train id masks like mmsegmentation."""
    rng = np.random.default_rng(0)
    maps = root / ("stuffthingmaps_trainval2017" if zipped else "annotations")
    for part, count in (("train2017", 6), ("val2017", 3)):
        images = root / ("" if zipped else "images") / part
        for i in range(count):
            image, mask = _two_sizes(i, *sample(rng, COCO_STUFF))
            write_image(images / f"{i:012d}.jpg", image)
            write_labels(maps / part / f"{i:012d}.png", (mask - 1) % 256)
            write_labels(maps / part / f"{i:012d}_labelTrainIds.png", 0 * mask)
        if zipped:
            pack(images, root / f"{part}.zip", part)
    if zipped:
        pack(maps, root / f"{maps.name}.zip")
    return root


LABELMEFACADE = (  # ids from 0: various, building, car, ...
    *((0, 0, 0), (128, 0, 0), (128, 0, 128), (128, 128, 0), (128, 128, 128)),
    *((128, 64, 0), (0, 128, 128), (0, 128, 0), (0, 0, 128)),
)


def labelmefacade(root, kind="colours"):
    """Write 6 train, 3 val and 2 test samples; masks: `colours` of 16 bits, or `ids`."""
    rng = np.random.default_rng(0)
    places = 3 * ["boston_static_street", "a new place"]
    places += ["paris_static_street", "paris_static_street", "static_outdoor_urban_city_london_uk"]
    places += ["madrid_static_street", "static_outdoor_montana_usa"]
    for i, place in enumerate(places):
        image, ids = sample(rng, range(9))
        name = f"{place}__IMG_{i}"
        if kind == "ids":
            write_image(root / "images" / "train" / f"{name}.jpg", image)
            write_labels(root / "masks" / "train" / f"{name}.png", ids)
        else:
            write_image(root / "images" / f"{name}.jpg", image)
            (root / "labels").mkdir(exist_ok=True)
            write_deep(root / "labels" / f"{name}.png", np.array(LABELMEFACADE)[ids])
    (root / "images" / "filelist.txt").touch()
    return root


def write_deep(path, colours):
    """Write colours (H, W, 3) of 0 to 255 as an RGBA png of 16 bits per value."""
    opaque = np.full((*colours.shape[:2], 1), 255)
    deep = 257 * np.concatenate((colours[..., ::-1], opaque), 2).astype(np.uint16)
    assert cv2.imwrite(str(path), deep)


def crackforest(root, kind="seg"):
    """Write 6 train, 3 val and 2 test samples; masks: the owners' `seg`, or `ids`."""
    rng = np.random.default_rng(0)
    for number in (1, 2, 12, 58, 68, 69, 70, 71, 79, 80, 118):
        image, segments = sample(rng, range(4))
        name = f"{number:03d}"
        if kind == "ids":
            write_image(root / "images" / "val" / f"{name}.jpg", image)
            write_labels(root / "masks" / "val" / f"{name}.png", segments == 1)
            continue
        write_image(root / "image" / f"{name}.jpg", image)
        lines = [f"width {WIDTH}", f"height {HEIGHT}", "segments 4", "data"]
        for row, line in enumerate(segments):
            ends = [*np.flatnonzero(np.diff(line)), WIDTH - 1]
            firsts = [0, *(end + 1 for end in ends[:-1])]
            runs = zip(line[firsts], firsts, ends, strict=True)
            lines += [f"{segment} {row} {first} {last}" for segment, first, last in runs]
        (root / "seg").mkdir(exist_ok=True)
        (root / "seg" / f"{name}.seg").write_text("\r\n".join(lines) + "\r\n")
    if kind == "seg":
        write_image(root / "image" / "201.jpg", image)  # without labels
    return root


# Labels of `data=folder`: id in the mask, colour in the mask, train id.
FOLDER = (
    (0, (0, 0, 0), 255),
    (1, (128, 64, 128), 0),
    (2, (0, 0, 142), 1),
    (3, (0, 0, 70), 1),
    (200, (255, 255, 255), 2),
)


def folder(root, kind="ids"):
    """Write 6 train, 3 val and 2 test samples; masks: `ids`, `colours` or ids in a `palette`."""
    rng = np.random.default_rng(0)
    ids = np.array([i for i, _, _ in FOLDER], np.uint8)
    colours = np.array([colour for _, colour, _ in FOLDER], np.uint8)
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for i in range(count):
            image, places = sample(rng, range(len(FOLDER)))
            write_image(root / "images" / split / f"{i}.jpg", image)
            path = root / "masks" / split / f"{i}.png"
            if kind == "colours":
                write_image(path, colours[places])
            else:
                write_labels(path, ids[places])
            if kind == "palette":
                mask = Image.fromarray(ids[places]).convert("P")
                mask.putpalette(bytes(range(255, -1, -1)) * 3)
                mask.save(path)
    labels = {0: "ids: [1]", 1: "ids: [2, 3]", 2: "ids: [200]", 255: "ids: [0]"}
    if kind == "colours":
        listed = {t: [list(c) for _, c, other in FOLDER if other == t] for t in labels}
        labels = {train_id: f"colours: {colours}" for train_id, colours in listed.items()}
    names = ("road", "vehicle", "other")
    classes = "\n".join(f"  - name: {name}\n    {labels[k]}" for k, name in enumerate(names))
    (root / "classes.yaml").write_text(f"classes:\n{classes}\nvoid:\n  {labels[255]}\n")
    return root


def png(width, height, kind=2, depth=8):
    """Return a png that claims a size, with a few rows of it: a small file that is large inside."""
    rows = zlib.compress(bytes(10 * (3 * width + 1)))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
