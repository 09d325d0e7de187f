"""Polygons of COCO and labelme become masks: exact pixels, layouts of tools, damaged files."""

import base64
import io
import json
import os
import re
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco

from gald.data.folder import Folder
from gald.data.tools.importing.coco import _decompress
from gald.data.tools.importing.jobs import inside
from gald.data.tools.importing.write import _turn

HEIGHT, WIDTH = 10, 12
CATEGORIES = [{"id": 7, "name": "road"}, {"id": 3, "name": "car"}]  # the order is by id


def picture(seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def art(text):
    """Labels from lines of digits, with a dot for 0 and x for 255."""
    values = {".": 0, "x": 255}
    return np.array([[values.get(c, c) for c in line] for line in text.split()], np.uint8)


def runs_of(text):
    """Uncompressed run lengths of the pixels that are not a dot."""
    flat = (art(text) > 0).T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *lengths] if flat[0] else lengths}


def compressed(text):
    runs = coco.encode(np.asfortranarray(art(text) > 0).astype(np.uint8))
    return runs | {"counts": runs["counts"].decode()}


def coco_json(path, annotations, names=("a.jpg",), size=(WIDTH, HEIGHT), **changes):
    """Write a json file; annotations are (index of the image, category, segmentation)."""
    width, height = size
    content = {
        "info": {"year": 2024},
        "images": [
            {"id": 10 + i, "file_name": name, "width": width, "height": height}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": n, "image_id": 10 + i, "category_id": category, "segmentation": segmentation}
            for n, (i, category, segmentation) in enumerate(annotations, 1)
        ],
        "categories": CATEGORIES,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes))


def shape(label, *points, kind="polygon", **others):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None} | others


def labelme_json(path, shapes, image="a.jpg", data=None, size=(WIDTH, HEIGHT)):
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image}
    content |= {"imageData": data, "imageWidth": size[0], "imageHeight": size[1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


BOX = [[6, 4, 11, 4, 11, 8, 6, 8]]
SQUARE = [[1, 1], [8, 1], [8, 8], [1, 8]]


@pytest.fixture
def gald_import(gald_cli, capsys):
    """Return a function that imports a folder; it returns the code and what was printed."""

    def call(kind, folder, *options):
        with pytest.raises(SystemExit) as end:
            gald_cli("data", "import", kind, str(folder), *map(str, options))
        return end.value.code, capsys.readouterr().out

    return call


def mask(folder, name="train/a"):
    return cv2.imread(str(folder / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# the rule of the pixels

RING = """
............
.22222222...
.22222222...
.22...222...
.22...222...
.22...222...
.22222222...
.22222222...
.22222222...
............
"""
COCO_EXPECTED = """
11..........
112222222...
.22222222...
.22...222...
.22...11111.
.22...11111.
.2222211211.
.2222211221.
.2222222222.
........2222
"""


@pytest.mark.parametrize("encode", [runs_of, compressed])
def test_coco_draws_holes_parts_crowds_and_overlaps(encode, tmp_path, gald_import):
    fake.write_image(tmp_path / "coco/a.png", picture())
    two_parts = [*BOX, [0, 0, 2, 0, 2, 2, 0, 2]]
    drawn = [(0, 7, encode(RING)), (0, 3, two_parts), (0, 7, [[8, 6, 12, 10, 8, 10]])]
    coco_json(tmp_path / "coco/some.json", drawn, ["a.png"])
    content = json.loads((tmp_path / "coco/some.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    (tmp_path / "coco/some.json").write_text(json.dumps(content))
    code, out = gald_import("coco", tmp_path / "coco")
    assert code == 0, out
    assert np.array_equal(mask(tmp_path / "coco_masks"), art(COCO_EXPECTED))


def test_compressed_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for shape_of_mask in ((1, 1), (3, 7), (200, 301)):
        for share in (0, 0.01, 0.5, 1):
            pixels = np.asfortranarray(rng.random(shape_of_mask) < share).astype(np.uint8)
            lengths = _decompress(coco.encode(pixels)["counts"].decode())
            flat = np.repeat(np.arange(len(lengths)) % 2, lengths)
            assert np.array_equal(flat, pixels.T.ravel())


LABELME_EXPECTED = """
............
.22222222...
.22222222...
.22333222...
.2233311111.
.2233311111.
.2222211111.
.x222211111.
xxx222222...
.x..........
"""


def test_labelme_draws_shapes_in_their_order(tmp_path, gald_import):
    fake.write_image(tmp_path / "lm/pictures/a.jpg", picture())
    shapes = [
        shape("road", *SQUARE),
        shape("window", [5, 5], [3, 3], kind="rectangle"),
        shape("car", [6, 4], [10, 4], [10, 7], [6, 7], group_id=1),
        shape("__ignore__", [1, 8], [1, 9], kind="circle", group_id=1),
    ]
    labelme_json(tmp_path / "lm/json/b.json", shapes, "..\\pictures\\a.jpg")
    code, out = gald_import("labelme", tmp_path / "lm", "--to", tmp_path / "out")
    assert code == 0, out
    assert np.array_equal(mask(tmp_path / "out", "train/b"), art(LABELME_EXPECTED))
    assert "classes: background, car, road, window" in out


@pytest.mark.parametrize(
    ("kind", "points", "expected"),
    [
        ("rectangle", ([2, 2], [4, 1], [4, 3], [2, 3]), None),
        ("line", ([5, 0], [5, 9]), 10 * 10),
        ("linestrip", ([5, 0], [5, 5], [5, 9]), 10 * 10),
        ("point", ([5, 5],), None),
        ("points", ([5, 5], [5, 5]), None),
        (None, ([2, 2], [4, 2], [4, 3], [2, 3]), 6),
    ],
)
def test_labelme_draws_every_type_of_shape(kind, points, expected, tmp_path, gald_import):
    fake.write_image(tmp_path / "lm/a.png", picture())
    labelme_json(tmp_path / "lm/a.json", [shape("road", *points, kind=kind)], "a.png")
    code, out = gald_import("labelme", tmp_path / "lm")
    assert code == 0, out
    area = int((mask(tmp_path / "lm_masks") == 1).sum())
    assert area == expected if expected else area > 4
    noted = kind in ("line", "linestrip", "point", "points")
    assert ("lines are drawn 10 pixels wide, points as discs of radius 5" in out) == noted


def test_labelme_draws_an_embedded_mask_between_its_corners(tmp_path, gald_import):
    stencil = np.array([[1, 0, 1], [1, 1, 0]], np.uint8) * 255
    data = base64.b64encode(cv2.imencode(".png", stencil)[1].tobytes()).decode()
    fake.write_image(tmp_path / "lm/a.png", picture())
    shapes = [shape("road", [2, 3], [4, 4], kind="mask", mask=data)]
    labelme_json(tmp_path / "lm/a.json", shapes, "a.png")
    assert gald_import("labelme", tmp_path / "lm")[0] == 0
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:5, 2:5] = stencil > 0
    assert np.array_equal(mask(tmp_path / "lm_masks"), expected)


# classes and pixels without annotation


def test_unlabelled_pixels_are_background_or_void(tmp_path, gald_import):
    fake.write_image(tmp_path / "coco/a.jpg", picture())
    coco_json(tmp_path / "coco/some.json", [(0, 7, BOX)])
    code, out = gald_import("coco", tmp_path / "coco", "--to", tmp_path / "one")
    assert code == 0 and "pixels without annotation are the class background" in out
    code, out = gald_import(
        "coco", tmp_path / "coco", "--to", tmp_path / "two", "--unlabelled", "void"
    )
    assert code == 0 and "pixels without annotation are void" in out
    assert "no annotation has the category car" in out
    one, two = (Folder(tmp_path / name, "train") for name in ("one", "two"))
    assert one.class_names == ("background", "car", "road") and two.class_names == ("car", "road")
    assert np.array_equal(one[0]["mask"], np.where(mask(tmp_path / "one") == 2, 2, 0))
    assert np.array_equal(two[0]["mask"], np.where(mask(tmp_path / "one") == 2, 1, 255))


@pytest.mark.parametrize("name", ["_background_", "Background"])
def test_a_background_of_the_annotations_is_the_background(name, tmp_path, gald_import):
    fake.write_image(tmp_path / "lm/a.jpg", picture())
    shapes = [shape("road", *SQUARE), shape(name, [3, 3], [5, 3], [5, 5], [3, 5])]
    labelme_json(tmp_path / "lm/a.json", shapes)
    assert gald_import("labelme", tmp_path / "lm")[0] == 0
    dataset = Folder(tmp_path / "lm_masks", "train")
    assert dataset.class_names == (name, "road")
    assert not dataset[0]["mask"][3:6, 3:6].any() and dataset[0]["mask"][2, 2] == 1


def test_names_of_classes_survive(tmp_path, gald_import):
    names = ["no", "1", 'a "b": c', "Straße", "{x}", "# y"]
    fake.write_image(tmp_path / "coco/a.jpg", picture())
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    coco_json(tmp_path / "coco/some.json", [(0, 5, BOX)], categories=categories)
    assert gald_import("coco", tmp_path / "coco")[0] == 0
    assert Folder(tmp_path / "coco_masks").class_names == ("background", *names)


def test_categories_of_several_files_are_merged_by_name(tmp_path, gald_import):
    for split, seed in (("train", 0), ("val", 1)):
        fake.write_image(tmp_path / "coco" / split / "a.jpg", picture(seed))
    coco_json(tmp_path / "coco/train/_annotations.coco.json", [(0, 7, BOX)])
    other = [{"id": 1, "name": "road"}, {"id": 2, "name": "bus"}]
    coco_json(tmp_path / "coco/val/_annotations.coco.json", [(0, 1, BOX)], categories=other)
    assert gald_import("coco", tmp_path / "coco")[0] == 0
    assert Folder(tmp_path / "coco_masks").class_names == ("background", "car", "road", "bus")
    masks = [mask(tmp_path / "coco_masks", f"{split}/a") for split in ("train", "val")]
    assert np.array_equal(*masks) and masks[0].max() == 2


# layouts of tools, output


@pytest.mark.parametrize(
    ("annotations", "images", "name"),
    [
        ("annotations/instances_{}2017.json", "{}2017", "a.jpg"),  # COCO
        ("annotations/instances_{}2017.json", "images/{}2017", "a.jpg"),
        ("{}/_annotations.coco.json", "{}", "a.jpg"),  # Roboflow
        ("annotations/instances_{}.json", "images/{}", "a.jpg"),  # CVAT
        ("{}.json", "images", "{}/a.jpg"),
        ("{}/result.json", "{}/images", "images\\a.jpg"),  # Label Studio on Windows
        ("{}/labels.json", "{}/data", "a.jpg"),  # FiftyOne
    ],
)
def test_images_are_found_where_tools_put_them(annotations, images, name, tmp_path, gald_import):
    for seed, split in enumerate(("train", "val")):
        name_in_split = name.format(split)
        file = tmp_path / "coco" / images.format(split) / name_in_split.replace("images\\", "")
        fake.write_image(file, picture(seed))
        coco_json(tmp_path / "coco" / annotations.format(split), [(0, 7, BOX)], [name_in_split])
    (tmp_path / "coco/annotations").mkdir(exist_ok=True)
    if "instances" in annotations:
        (tmp_path / "coco/annotations/captions_train2017.json").write_text("{}")
    code, out = gald_import("coco", tmp_path / "coco", "--to", tmp_path / "out")
    assert code == 0, out
    assert files(tmp_path / "out") == [
        "classes.yaml",
        "images/train/a.jpg",
        "images/val/a.jpg",
        "masks/train/a.png",
        "masks/val/a.png",
    ]
    assert "1 train, 1 val, 0 test images" in out
    assert out.endswith(f"next: gald data verify folder data.root={tmp_path / 'out'}\n")


def test_the_output_is_deterministic_and_verified(tmp_path, gald_import, gald_cli, capsys):
    for i, name in enumerate(("x/a.jpg", "x/b.JPG", "y/a.jpg", "y/c.png")):
        fake.write_image(tmp_path / "coco/images" / name, picture(i))
    names = ["x/b.JPG", "y/c.png", "x/a.jpg", "y/a.jpg"]
    drawn = [(i, 7 if i % 2 else 3, BOX) for i in range(4)]
    coco_json(tmp_path / "coco/annotations.json", drawn, names)
    for out in ("one", "two"):
        code, text = gald_import("coco", tmp_path / "coco", "--to", tmp_path / out)
        assert code == 0 and "no folder or json file is named val" in text
    one, two = tmp_path / "one", tmp_path / "two"
    assert files(one) == files(two) and len(files(one)) == 9
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files(one))
    assert "data.val_fraction=0.2" in text
    words = text.rpartition("next: gald ")[2].split()
    with pytest.raises(SystemExit) as end:
        gald_cli(*words)
    assert end.value.code == 0, capsys.readouterr().out


def test_images_are_linked_or_copied_and_nothing_is_overwritten(tmp_path, gald_import, gald_cli):
    source = tmp_path / "coco/a.jpg"
    fake.write_image(source, picture())
    coco_json(tmp_path / "coco/some.json", [(0, 7, BOX)])
    assert "1 image linked" in gald_import("coco", tmp_path / "coco", "--to", tmp_path / "one")[1]
    out = gald_import("coco", tmp_path / "coco", "--to", tmp_path / "two", "--copy")[1]
    assert "1 image copied" in out
    linked, copied = (tmp_path / name / "images/train/a.jpg" for name in ("one", "two"))
    assert os.path.samefile(source, linked) and not os.path.samefile(source, copied)
    assert copied.read_bytes() == source.read_bytes()
    before = {name: (tmp_path / "one" / name).read_bytes() for name in files(tmp_path / "one")}
    with pytest.raises(ValueError, match=r"one already holds something; choose another --to"):
        gald_cli("data", "import", "coco", str(tmp_path / "coco"), "--to", str(tmp_path / "one"))
    with pytest.raises(ValueError, match=r"coco already holds something"):
        gald_cli("data", "import", "coco", str(tmp_path / "coco"), "--to", str(tmp_path / "coco"))
    assert before == {
        name: (tmp_path / "one" / name).read_bytes() for name in files(tmp_path / "one")
    }


def test_embedded_images_and_splits_of_labelme(tmp_path, gald_import):
    data = cv2.imencode(".png", picture())[1].tobytes()
    text = base64.b64encode(data).decode()
    for place in ("train/x/a", "train/y/a", "validation/z"):
        labelme_json(tmp_path / "lm" / f"{place}.json", [shape("road", *SQUARE)], "/no/a.jpg", text)
    code, out = gald_import("labelme", tmp_path / "lm")
    assert code == 0, out
    root = tmp_path / "lm_masks"
    assert [name for name in files(root) if "images" in name] == [
        "images/train/x/a.png",
        "images/train/y/a.png",
        "images/val/z.png",
    ]
    assert (root / "images/val/z.png").read_bytes() == data and len(Folder(root, "train+val")) == 3


# orientation


def with_tag(path, orientation, upright):
    """Write an image whose pixels are turned, so that its tag turns them upright again."""
    turn = {1: 0, 3: 2, 6: 1, 8: -1}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(np.rot90(upright, turn))).save(
        path, exif=exif, quality=100, subsampling=0
    )


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_labelme_annotates_the_upright_image(orientation, tmp_path, gald_import):
    upright = cv2.resize(picture(), (WIDTH * 4, HEIGHT * 4))
    with_tag(tmp_path / "lm/a.jpg", orientation, upright)
    labelme_json(tmp_path / "lm/a.json", [shape("road", *SQUARE)], size=upright.shape[1::-1])
    code, out = gald_import("labelme", tmp_path / "lm")
    assert code == 0, out
    (path,) = (tmp_path / "lm_masks/images/train").iterdir()
    assert path.suffix == (".jpg" if orientation == 1 else ".png")
    written = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(written.astype(int) - upright).mean() < 3
    assert mask(tmp_path / "lm_masks").shape == upright.shape[:2]


def test_every_orientation_is_turned_as_pillow_does():
    for orientation in range(1, 9):
        content = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture()).save(content, "PNG", exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(content)))
        assert np.array_equal(_turn(picture(), orientation), expected), orientation


def test_coco_on_a_turned_image_needs_a_size_that_tells(tmp_path, gald_import):
    root = tmp_path / "coco"
    upright = cv2.resize(picture(), (48, 40))
    with_tag(root / "a.jpg", 6, upright)  # stored as 40x48
    with_tag(root / "b.jpg", 6, upright)
    with_tag(root / "c.jpg", 3, upright)
    with_tag(root / "d.jpg", 1, upright)
    coco_json(root / "some.json", [(0, 7, BOX)], ["a.jpg", "c.jpg", "d.jpg"], (48, 40))
    coco_json(root / "other.json", [(0, 7, BOX)], ["b.jpg"], (40, 48))
    code, out = gald_import("coco", root)
    assert code == 1
    assert "c.jpg of" in out and "orientation (3), and its annotations do not say" in out
    assert [mask(tmp_path / "coco_masks", f"train/{name}").shape for name in "abd"] == [
        (40, 48),
        (48, 40),
        (40, 48),
    ]
    assert len(Folder(tmp_path / "coco_masks")) == 3


# damaged files


def broken(**changes):
    return {"images": [], "annotations": [], "categories": CATEGORIES} | changes


def runs(counts, size=(HEIGHT, WIDTH)):
    return {"size": list(size), "counts": counts}


BAD_SEGMENTATIONS = {
    "nothing": ([], "has no polygon and no run lengths"),
    "null": (None, "has no polygon and no run lengths"),
    "two points": ([[1, 1, 2, 2]], "not a list x, y, x, y, ... of at least three points"),
    "odd": ([[1, 1, 2, 2, 3, 3, 4]], "not a list x, y, x, y, ... of at least three points"),
    "text": ([["a", 1, 2, 2, 3, 3]], "points that are not pairs of numbers"),
    "nan": ([[float("nan"), 1, 2, 2, 3, 3]], "far outside of the 12x10 image"),
    "far": ([[1e9, 1, 2, 2, 3, 3]], "the point 1e+09, 1, far outside of the 12x10 image"),
    "short runs": (runs([3]), "do not add up to 120 pixels"),
    "long runs": (runs([3, 500]), "do not add up to 120 pixels"),
    "negative": (runs([-3, 123]), "do not add up to 120 pixels"),
    "fractions": (runs([0.5, 119.5]), "do not add up to 120 pixels"),
    "text runs": (runs("zzzz"), "do not add up to 120 pixels"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "do not add up to 120 pixels"),
    "other size": (runs([120], (5, 24)), "run lengths of size [5, 24], but the image has [10, 12]"),
}


def natural(problem):
    return int(problem.split()[1])


def test_bad_coco_annotations_are_named_and_the_others_written(tmp_path, gald_import):
    root = tmp_path / "coco"
    names = ["good.jpg", *(f"{i}.jpg" for i in range(len(BAD_SEGMENTATIONS)))]
    for name in names:
        fake.write_image(root / name, picture())
    bad = [(i, 7, s) for i, (s, _) in enumerate(BAD_SEGMENTATIONS.values(), 1)]
    coco_json(root / "some.json", [(0, 3, BOX), *bad], names)
    code, out = gald_import("coco", root)
    assert code == 1 and "and 4 more in" in out
    problems = (tmp_path / "coco_masks/problems.txt").read_text().splitlines()
    assert len(problems) == len(bad)
    expected = [words for _, words in BAD_SEGMENTATIONS.values()]
    for problem, words in zip(sorted(problems, key=natural), expected, strict=True):
        assert words in problem and str(root) in problem, problem
    assert files(tmp_path / "coco_masks/masks") == ["train/good.png"]


def test_bad_coco_entries_are_named_and_the_others_written(tmp_path, gald_import):
    root = tmp_path / "coco"
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/a.jpg", "images/sub/a.jpg", "e.png"):
        fake.write_image(root / name, picture())
    (root / "b.jpg").write_bytes((root / "b.jpg").read_bytes()[:-30])
    (root / "d.jpg").write_text("text")
    (root / "e.png").rename(root / "e.bmp")
    fake.write_image(root / "small.jpg", picture(height=5))
    names = ["a.jpg", "b.jpg", "c.jpg", "c.jpg", "gone.jpg", "d.jpg", "small.jpg", "../x.jpg"]
    names += ["/etc/passwd", "C:\\x.jpg", "../../etc/passwd", "sub/a.jpg", "e.bmp", None, "a\0.jpg"]
    coco_json(root / "some.json", [(0, 7, BOX), (90, 7, BOX)], names)
    (root / "broken.json").write_text('{"images": [')
    (root / "other.json").write_text("[]")
    (root / "numbers.json").write_text(json.dumps(broken(images=[1])))
    (root / "classless.json").write_text(json.dumps(broken(categories=[{"id": 1}])))
    (root / "twice.json").write_text(json.dumps(broken(categories=CATEGORIES[:1] * 2)))
    (root / "._some.json").write_bytes(b"\0")
    code, out = gald_import("coco", root)
    assert code == 1, out
    text = (tmp_path / "coco_masks/problems.txt").read_text()
    for words in (
        "broken.json is not valid json",
        "other.json is not a json file of COCO, because it has no list of images",
        "numbers.json is not a json file of COCO, because it has no list of images",
        "category 1 of .*classless.json has the name None",
        "twice.json has categories without an id, or with the same id",
        "annotation 2 of .*some.json is of image 100, which it does not list",
        "b.jpg is truncated",
        "image 'c.jpg' of .*some.json is listed twice",
        "image 'gone.jpg' of .*some.json does not exist .looked in .*add --images FOLDER",
        "d.jpg of .* is not a png or jpg",
        "small.jpg of .* is 12x10 in the json, but the image is 12x5",
        "image '../x.jpg' of .* leads out of",
        "image '/etc/passwd' of .* leads out of",
        "image 'C:.*x.jpg' of .* leads out of",
        "image '../../etc/passwd' of .* leads out of",
        "image 'sub/a.jpg' of .* could be .*; add --images .* or --images ",
        "e.bmp of .* is not a png or jpg",
        "image None of .* has no id or no file_name",
        r"image 'a\\x00.jpg' of .* leads out of",
    ):
        assert re.search(words, text), words
    assert files(tmp_path / "coco_masks/masks") == ["train/a.png", "train/c.png"]
    with_images = gald_import("coco", root, "--images", root / "images", "--to", tmp_path / "two")
    assert with_images[0] == 1 and files(tmp_path / "two/masks") == ["train/a.png"]


BAD_LABELME = {
    "broken": (None, "is not valid json"),
    "list": ("[]", "is not a json file of labelme, because it has no list of shapes"),
    "label": ([shape(5, *SQUARE)], "shape 1 of .* has the name 5"),
    "type": ([shape("a", *SQUARE, kind="cube")], "is a 'cube'; draw it as one of polygon"),
    "few": ([shape("a", [1, 1], [2, 2])], "is a polygon of 2 points"),
    "circle": ([shape("a", *SQUARE, kind="circle")], "is a circle of 4 points"),
    "words": ([shape("a", ["x", "y"], [1, 2], [2, 3])], "points that are not pairs of numbers"),
    "triples": ([shape("a", [1, 2, 3], [4, 5, 6])], "points that are not pairs of numbers"),
    "far": ([shape("a", [1, 1], [1e12, 2], [2, 3])], "far outside of the 12x10 image"),
    "mask": ([shape("a", [1, 1], [2, 2], kind="mask", mask="?")], "not a png in base64"),
    "points": ([{"label": "a", "shape_type": "polygon"}], "has no list of points"),
}


def test_bad_labelme_files_are_named_and_the_others_written(tmp_path, gald_import):
    root = tmp_path / "lm"
    for name, (content, _) in BAD_LABELME.items():
        fake.write_image(root / f"{name}.jpg", picture())
        if isinstance(content, list):
            labelme_json(root / f"{name}.json", content, f"{name}.jpg")
        else:
            (root / f"{name}.json").write_text(content or "{")
    for name, path in (("out", "../../etc/passwd"), ("root", "/etc/passwd"), ("gone", "no.jpg")):
        labelme_json(root / f"{name}.json", [shape("a", *SQUARE)], path)
    labelme_json(root / "data.json", [shape("a", *SQUARE)], data="?")
    labelme_json(root / "text.json", [shape("a", *SQUARE)], data="dGV4dA==")
    labelme_json(root / "size.json", [shape("a", *SQUARE)], "few.jpg", size=(3, "x"))
    fake.write_image(root / "good.jpg", picture())
    fake.write_image(root / "alone.jpg", picture())
    labelme_json(root / "good.json", [shape("a", *SQUARE)], "good.jpg")
    labelme_json(root / "hood.json", [shape("a", *SQUARE)], "good.jpg")
    code, out = gald_import("labelme", root)
    assert code == 1
    problems = (tmp_path / "lm_masks/problems.txt").read_text().splitlines()
    others = {
        "out": "imagePath '../../etc/passwd', which leads out of",
        "root": "imagePath '/etc/passwd', which leads out of",
        "gone": "no.jpg does not exist",
        "data": "imageData that is not base64",
        "text": "is not a png or jpg",
        "size": "and so is .*few.json; delete one",
        "hood": "is of .*good.jpg, and so is .*good.json; delete one",
    }
    expected = {name: words for name, (_, words) in BAD_LABELME.items()} | others
    assert len(problems) == len(expected)
    for name, words in expected.items():
        assert any(f"/{name}.json" in p and re.search(words, p) for p in problems), (name, problems)
    assert files(tmp_path / "lm_masks/masks") == ["train/good.png"]
    assert "1 image without a json of its name is left out, e.g." in out and "alone" in out


@pytest.mark.parametrize(
    ("kind", "prepare", "message"),
    [
        ("coco", lambda root: None, "has no json file of COCO"),
        ("labelme", lambda root: None, "has no json file of labelme"),
        ("coco", lambda root: (root / "a.json").write_text("{"), "a.json is not valid json"),
        (
            "coco",
            lambda root: coco_json(root / "a.json", [], categories=[]),
            "has no labelled object, so there are no classes",
        ),
        (
            "coco",
            lambda root: coco_json(
                root / "a.json", [], categories=[{"id": i, "name": f"c{i}"} for i in range(254)]
            ),
            "has 254 classes, but a mask can store 253",
        ),
        ("coco", lambda root: coco_json(root / "a.json", []), "image 'a.jpg' of .* does not exist"),
        ("coco", lambda root: coco_json(root / "a.json", [], []), "lists no images"),
        (
            "coco",
            lambda root: [coco_json(root / f"{name}.json", []) for name in ("train", "more")],
            "more.json is in no split, but .*train.json is in train; move it",
        ),
        (
            "coco",
            lambda root: coco_json(root / "train_val.json", []),
            "train_val.json could be train or val; rename it",
        ),
    ],
)
def test_an_import_without_result_leaves_nothing(kind, prepare, message, tmp_path, gald_cli):
    root = tmp_path / "data"
    root.mkdir()
    prepare(root)
    with pytest.raises(ValueError, match=message) as error:
        gald_cli("data", "import", kind, str(root))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "it needs KIND"),
        (("yolo", "x"), 'Invalid value "yolo" for KIND'),
        (("coco", "nowhere"), "nowhere is not a folder; choose the folder of the json files"),
        (("coco", ".", "--images", "nowhere"), "nowhere is not a folder"),
        (("coco", ".", "--unlabelled", "x"), 'Invalid value "x" for --unlabelled'),
    ],
)
def test_bad_arguments_are_one_sentence(words, message, tmp_path, gald_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        gald_cli("data", "import", *words)


def test_a_path_that_leads_out_is_recognised(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), tmp_path):
        assert inside(folder / "json", "../a.jpg", folder) == folder / "a.jpg"
        for given in ("../../a.jpg", "..\\..\\a.jpg", "/a.jpg", "\\a.jpg", "c:a.jpg", "a\0"):
            assert inside(folder / "json", given, folder) is None, given
        assert inside(folder, "../x", folder) is None


# training


@pytest.mark.integration
def test_an_import_can_be_trained(tmp_path, gald_import, gald_cli):
    root = tmp_path / "coco"
    names = [f"{i}.jpg" for i in range(4)]
    for i, name in enumerate(names):
        fake.write_image(root / name, picture(i, 40, 48))
    drawn = [(i, 3 + 4 * (i % 2), [[4, 4, 40, 4, 40, 30, 4, 30]]) for i in range(4)]
    coco_json(root / "some.json", drawn, names, (48, 40))
    assert gald_import("coco", root, "--to", tmp_path / "out")[0] == 0
    gald_cli(
        "train",
        "data=folder",
        f"data.root={tmp_path / 'out'}",
        "data.val_fraction=0.25",
        "data.global_batch_size=3",
        "data.num_workers=0",
        "data.train_transform.crop_size=[32,32]",
        "model.channels=16",
        "model.backbone.name=test_resnet",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "logger=csv",
        "report=false",
        f"output_dir={tmp_path / 'run'}",
    )
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert "val/iou/background" in results and "val/iou/road" in results
