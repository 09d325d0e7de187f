import textwrap
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest
import torch
import yaml

from gald.data import folder as folder_module
from gald.data.folder import Folder, FolderDataModule
from gald.data.folder_classes import distinct_colour, read_classes
from gald.data.pairs import note_rejects
from gald.data.reading.sample_error import SampleError
from gald.data.transforms import TrainTransform

KINDS = ("ids", "colours", "palette")


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and text, text
    return text


def classes(root, text):
    path = root / "classes.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


# reading


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_gives_the_same_samples(tmp_path, kind):
    root = fake.folder(tmp_path / "data", kind)
    rng = np.random.default_rng(0)
    train_ids = np.array([train_id for _, _, train_id in fake.FOLDER])
    for index, item in enumerate(Folder(root, "train")):
        _, places = fake.sample(rng, range(len(fake.FOLDER)))
        assert np.array_equal(item["mask"].numpy(), train_ids[places])
        assert item["mask"].dtype == item["image"].dtype == torch.uint8
        assert item["image"].shape == (3, 24, 32) and item["name"] == str(index)
    assert len(Folder(root, "val")) == 3 and len(Folder(root, "train+test")) == 8


def test_grey_masks_can_be_listed_by_colours(tmp_path):
    root = fake.folder(tmp_path / "data", "ids")
    expected = Folder(root)[0]["mask"]
    greys = {i: [[i, i, i]] for i, _, _ in fake.FOLDER}
    content = {
        "classes": [
            {"name": "road", "colours": greys[1]},
            {"name": "vehicle", "colours": greys[2] + greys[3]},
            {"name": "other", "colours": greys[200]},
        ],
        "void": {"colours": greys[0]},
    }
    classes(root, yaml.safe_dump(content))
    assert torch.equal(Folder(root)[0]["mask"], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_splits_may_be_the_outer_folders(tmp_path, kind):
    root = fake.folder(tmp_path / "data", kind)
    expected = [item["mask"] for item in Folder(root, "train+val+test")]
    for what in ("images", "masks"):
        for part in ("train", "val", "test"):
            (root / part).mkdir(exist_ok=True)
            (root / what / part).rename(root / part / what)
        (root / what).rmdir()
    masks = [item["mask"] for item in Folder(root, "train+val+test")]
    assert all(map(torch.equal, expected, masks)) and len(masks) == 11


def test_root_may_be_inside_of_a_zip(tmp_path):
    root = fake.folder(tmp_path / "data", "colours")
    expected = Folder(root)[3]["mask"]
    fake.pack(root, tmp_path / "data.zip", "mine")
    dataset = Folder(tmp_path / "data.zip" / "mine")
    assert len(dataset) == 6 and torch.equal(dataset[3]["mask"], expected)
    assert FolderDataModule(str(tmp_path / "data.zip" / "mine")).has_test


def test_suffixes_and_nested_folders_are_matched(tmp_path):
    root = fake.folder(tmp_path / "data")
    for what, ending in (("images", "_photo.jpg"), ("masks", "_labelIds.png")):
        for path in sorted((root / what / "train").iterdir()):
            place = root / what / "train" / f"street{int(path.stem) % 2}" / f"{path.stem}{ending}"
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
    (root / "masks" / "train" / "street0" / "0_instanceIds.png").write_bytes(b"")
    (root / "masks" / "train" / "street0" / "._0_labelIds.png").write_bytes(b"")
    dataset = Folder(root, image_suffix="_photo", mask_suffix="_labelIds")
    names = [dataset.image_name(i) for i in range(len(dataset))]
    assert names == ["street0_0", "street0_2", "street0_4", "street1_1", "street1_3", "street1_5"]
    assert dataset[0]["image"].shape == (3, 24, 32)
    with pytest.raises(SampleError, match=r"has no mask .*set data\.mask_suffix"):
        Folder(root, image_suffix="_photo")


@pytest.mark.parametrize("kind", ["ids", "colours"])
def test_void_rest_makes_unlisted_labels_void(tmp_path, kind):
    root = fake.folder(tmp_path / "data", kind)
    road = {"ids": "ids: [1]", "colours": "colours: [[128, 64, 128]]"}[kind]
    before = Folder(root)[0]["mask"]
    classes(root, f"classes: [{{name: road, {road}}}]\nvoid: rest\n")
    dataset = Folder(root)
    assert torch.equal(dataset[0]["mask"], torch.where(before == 0, before, 255))
    strict = classes(root, f"classes: [{{name: road, {road}}}]\n")
    with pytest.raises(SampleError, match="does not list"):
        Folder(root)[0]
    strict.write_text(strict.read_text() + "void: rest\n")
    assert dataset.fingerprint() == Folder(root).fingerprint()


@pytest.mark.parametrize("kind", ["ids", "colours"])
def test_the_fingerprint_changes_with_the_list_of_classes(tmp_path, kind):
    root = fake.folder(tmp_path / "data", kind)
    seen = {Folder(root).fingerprint()}
    path = root / "classes.yaml"
    for old, new in (("[2, 3]", "[2, 4]"), ("[[0, 0, 142]", "[[0, 0, 143]")):
        path.write_text(path.read_text().replace(old, new))
        seen.add(Folder(root).fingerprint())
    assert len(seen) == 2
    for void in ("", "void: rest\n"):
        path.write_text(path.read_text().partition("void:")[0] + void)
        seen.add(Folder(root).fingerprint())
    assert len(seen) == 4


def test_black_white_and_neighbouring_colours_are_distinguished(tmp_path):
    listed = [[0, 0, 0], [255, 255, 255], [0, 0, 1], [1, 0, 0], [0, 255, 0]]
    entries = [{"name": str(colour), "colours": [colour]} for colour in listed]
    path = classes(tmp_path, yaml.safe_dump({"classes": entries}))
    table = folder_module._ColourTable(read_classes(path))
    others = [[255, 255, 254], [0, 1, 0], [254, 255, 255], [2, 0, 0]]
    image = np.array([listed + others], np.uint8)
    assert table.train_ids(image).tolist() == [[0, 1, 2, 3, 4, 254, 254, 254, 254]]


# the module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", ["none", "ram"])
def test_module_knows_its_classes_before_setup_and_serves_batches(tmp_path, kind, cache):
    root = fake.folder(tmp_path / "data", kind)
    crop = TrainTransform([16, 16])
    options = {"global_batch_size": 3, "num_workers": 0, "train_transform": crop, "cache": cache}
    module = FolderDataModule(str(root), **options)
    assert module.class_names == ("road", "vehicle", "other") and module.num_classes == 3
    assert len(module.palette) == 3
    module.setup()
    batches = list(module.train_dataloader())
    assert len(batches) == 2 and batches[0]["image"].shape == (3, 3, 16, 16)
    labels = set(torch.cat([batch["mask"] for batch in batches]).unique().tolist())
    assert labels <= {0, 1, 2, 255} and len(labels) > 2
    assert len(module.test_dataset) == 2
    assert len(FolderDataModule(str(root), train_split="train+val").make_dataset("train"))


@pytest.mark.parametrize("missing", ["images", "masks"])
def test_the_test_split_needs_both_of_its_folders(tmp_path, missing):
    root = fake.folder(tmp_path / "data")
    assert FolderDataModule(str(root)).has_test
    (root / missing / "test").rename(root / "away")
    module = FolderDataModule(str(root), num_workers=0)
    assert not module.has_test
    module.setup()
    assert module.test_dataset is None


def test_the_list_of_classes_may_be_in_another_folder(tmp_path):
    root = fake.folder(tmp_path / "data")
    (root / "classes.yaml").rename(tmp_path / "mine.yaml")
    for classes in ("../mine.yaml", str(tmp_path / "mine.yaml")):
        assert FolderDataModule(str(root), classes=classes).num_classes == 3
        assert len(Folder(root, classes=classes)) == 6


# palette


def test_the_palette_is_listed_or_from_the_masks_or_chosen(tmp_path):
    path = classes(
        tmp_path,
        """
        classes:
          - {name: a, ids: [1]}
          - {name: b, ids: [2], colour: [9, 8, 7]}
        """,
    )
    assert read_classes(path).palette == (distinct_colour(0), (9, 8, 7))
    path.write_text(
        "classes: [{name: a, colours: [[1, 2, 3], [4, 5, 6]]},"
        "{name: b, colours: [[7, 8, 9]], colour: [0, 0, 9]}]"
    )
    assert read_classes(path).palette == ((1, 2, 3), (0, 0, 9))


def test_chosen_colours_differ_and_consecutive_ones_differ_much():
    colours = np.array([distinct_colour(i) for i in range(60)])
    assert colours.min() >= 0 and colours.max() <= 255 and len(np.unique(colours, axis=0)) == 60
    assert np.abs(np.diff(colours, axis=0)).sum(1).min() > 200
    few = colours[:12]
    assert min(np.abs(a - b).sum() for i, a in enumerate(few) for b in few[:i]) > 60


# classes.yaml


def test_the_examples_of_the_module_docstring_are_valid(tmp_path):
    examples = [part.partition("```")[0] for part in folder_module.__doc__.split("```yaml")[1:]]
    by_ids, by_colours = (read_classes(classes(tmp_path, text)) for text in examples)
    assert by_ids.names == by_colours.names == ("road", "vehicle")
    assert by_ids.ids == {1: 0, 2: 1, 3: 1, 7: 1, 0: 255, 255: 255} and not by_ids.rest_is_void
    assert by_colours.colours == {(128, 64, 128): 0, (0, 0, 142): 1, (0, 0, 70): 1}
    assert by_colours.rest_is_void and by_colours.palette[1] == by_ids.palette[1] == (0, 0, 142)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no classes; write"),
        ("classes: []", "lists no classes; write"),
        ("classes: {road: 1}", "lists no classes; write"),
        ("- name: road", r"classes\.yaml is \[.*known keys are classes, void"),
        ("classes: [", r"is not valid YAML \(.*line 1"),
        ("classes: [{name: a, ids: [1], ids: [2]}]", r"is not valid YAML \(.*duplicate key ids"),
        ("klasses: []", "has the key 'klasses'; known keys are classes, void"),
        ("classes: [road]", "class 1 of .* is 'road', not a list of keys; known keys are name"),
        ("classes: [{ids: [1]}]", r"class 1 of .* has no text as its name \(None\)"),
        ("classes: [{name: no, ids: [1]}]", r"class 1 of .* has no text as its name \(False\)"),
        ("classes: [{name: a, color: [1, 2, 3]}]", "class 1 of .* has the key 'color'; known keys"),
        ("classes: [{name: a}]", r"class 1 \(a\) of .* has no ids; give each class"),
        (
            "classes: [{name: a, ids: [1], colours: [[1, 1, 1]]}]",
            r"class 1 \(a\) of .* has ids and colours",
        ),
        (
            "classes: [{name: a, ids: [1]}, {name: b, colours: [[1, 1, 1]]}]",
            r"class 2 \(b\) of .* has colours; give each class and void ids, like class 1",
        ),
        (
            "classes: [{name: a, ids: 1}]",
            r"class 1 \(a\) of .* has ids 1; write a list, e\.g\. ids",
        ),
        ("classes: [{name: a, ids: []}]", r"class 1 \(a\) of .* has ids \[\]; write a list"),
        ("classes: [{name: a, ids: [256]}]", r"class 1 \(a\) of .* has the id 256; ids are"),
        ("classes: [{name: a, ids: [-1]}]", r"class 1 \(a\) of .* has the id -1; ids are"),
        ("classes: [{name: a, ids: [1.5]}]", r"class 1 \(a\) of .* has the id 1\.5; ids are"),
        ("classes: [{name: a, ids: [true]}]", r"class 1 \(a\) of .* has the id True; ids are"),
        (
            "classes: [{name: a, ids: [1]}, {name: b, ids: [2, 1]}]",
            r"class 2 \(b\) of .* has 1, and so has class 1 \(a\) of .*; list it in only one",
        ),
        ("classes: [{name: a, ids: [1, 1]}]", r"class 1 \(a\) of .* has 1, and so has class 1"),
        (
            "classes: [{name: a, ids: [1]}, {name: a, ids: [2]}]",
            r"class 2 \(a\) of .* has the name of class 1; to merge labels, list all their ids",
        ),
        (
            "classes: [{name: a, colours: [[1, 2, 3]]}, {name: b, colours: [[1, 2, 3]]}]",
            r"class 2 \(b\) of .* has \(1, 2, 3\), and so has class 1 \(a\)",
        ),
        ("classes: [{name: a, colours: [1, 2, 3]}]", r"\(a\) of .* has the colour 1; write red"),
        ("classes: [{name: a, colours: [[1, 2]]}]", r"\(a\) of .* has the colour \[1, 2\];"),
        ("classes: [{name: a, colours: [[1, 2, 300]]}]", r"has the colour \[1, 2, 300\];"),
        (
            "classes: [{name: a, ids: [1], colour: red}]",
            r"has the colour 'red'.* e\.g\. colour: \[",
        ),
        ("classes: [{name: a, ids: [1]}]\nvoid: 0", r"void of .* is 0, not a list of keys"),
        ("classes: [{name: a, ids: [1]}]\nvoid: {ids: [1]}", r"void of .* has 1, and so has class"),
        (
            "classes: [{name: a, ids: [1]}]\nvoid: {colours: [[0, 0, 0]]}",
            "void of .* has colours; give each class and void ids",
        ),
    ],
)
def test_a_mistake_in_the_list_names_the_file_and_the_entry(tmp_path, text, message):
    path = classes(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_classes(path)
    assert str(path) in sentence(error)


def test_more_classes_than_a_mask_can_store_are_refused(tmp_path):
    entries = [{"name": f"c{i}", "colours": [[0, i // 200, i % 200]]} for i in range(255)]
    path = classes(tmp_path, yaml.safe_dump({"classes": entries}))
    with pytest.raises(ValueError, match="lists 255 classes; a mask can store at most 254"):
        read_classes(path)
    path.write_text(yaml.safe_dump({"classes": entries[1:]}))
    assert len(read_classes(path).names) == 254


# errors


def test_missing_root_says_what_to_write_and_what_to_set(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        FolderDataModule(str(tmp_path / "nowhere"))
    text = sentence(error)
    for part in (f"{tmp_path}/nowhere/classes.yaml", "classes: [", "data.root", "data.classes"):
        assert part in text
    example = "classes: [" + text.partition("classes: [")[2].rpartition("]")[0] + "]"
    assert read_classes(classes(tmp_path, example)).names == ("road", "car")


@pytest.mark.parametrize("what", ["images", "masks"])
def test_missing_folders_are_named(tmp_path, what):
    root = fake.folder(tmp_path / "data")
    (root / what / "val").rename(root / "away")
    with pytest.raises(FileNotFoundError) as error:
        Folder(root, "val")
    text = sentence(error)
    for part in (str(root), "images/val and masks/val", "val/images and val/masks", "data.root"):
        assert part in text


@pytest.mark.parametrize("kind", KINDS)
def test_an_unlisted_label_names_mask_value_and_pixel(tmp_path, kind):
    root = fake.folder(tmp_path / "data", kind)
    path = root / "masks" / "train" / "2.png"
    if kind == "colours":
        colours = np.full((24, 32, 3), 255, np.uint8)
        colours[4, 5] = 10, 20, 30
        fake.write_image(path, colours)
    else:
        ids = np.ones((24, 32), np.uint8)
        ids[4, 5] = 77
        fake.write_labels(path, ids)
    with pytest.raises(SampleError) as error:
        Folder(root)[2]
    text = sentence(error)
    value = "colour [10, 20, 30]" if kind == "colours" else "label 77"
    for part in (
        str(path),
        f"{value} in row 4, column 5",
        str(root / "classes.yaml"),
        "void: rest",
    ):
        assert part in text


@pytest.mark.parametrize("what", ["images", "masks"])
def test_a_file_without_partner_is_named(tmp_path, what):
    root = fake.folder(tmp_path / "data")
    (path,) = (root / what / "train").glob("3.*")
    path.unlink()
    with pytest.raises(SampleError) as error:
        Folder(root)
    text = sentence(error)
    left = {"images": "masks/train/3.png", "masks": "images/train/3.jpg"}[what]
    assert str(root / Path(left)) in text and "suffix" in text
    with note_rejects() as rejects:
        assert len(Folder(root)) == 5
    assert len(rejects) == 1


@pytest.mark.parametrize("ending", [".tif", ".webp", ".TIFF"])
def test_an_image_of_another_format_is_named(tmp_path, ending):
    root = fake.folder(tmp_path / "data", "ids")
    image = sorted((root / "images" / "train").iterdir())[1]
    moved = image.rename(image.with_suffix(ending))
    with pytest.raises(SampleError) as error:
        Folder(root, "train")
    assert sentence(error).startswith(f"image {moved} is neither png nor jpg, and no other format")


def test_two_images_with_the_same_name_are_named(tmp_path):
    root = fake.folder(tmp_path / "data")
    (root / "images" / "train" / "3.png").write_bytes(b"")
    with pytest.raises(SampleError, match=r"3\.jpg and .*3\.png have the same name; remove one"):
        Folder(root)


def test_an_empty_split_is_named(tmp_path):
    root = fake.folder(tmp_path / "data")
    for path in root.rglob("val/*.*"):
        path.unlink()
    with pytest.raises(SampleError, match=r"val of .* has no images"):
        Folder(root, "val")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["images", "masks"])
def test_truncated_files_are_detected(tmp_path, kind, what):
    root = fake.folder(tmp_path / "data", kind)
    (path,) = (root / what / "train").glob("3.*")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SampleError, match=rf"{path.name} is truncated"):
        Folder(root)[3]


def test_an_rgb_mask_is_refused_if_ids_are_listed(tmp_path):
    root = fake.folder(tmp_path / "data", "ids")
    path = root / "masks" / "train" / "0.png"
    assert cv2.imwrite(str(path), np.full((24, 32, 3), (1, 2, 3), np.uint8))
    with pytest.raises(SampleError, match="is an RGB png"):
        Folder(root)[0]
