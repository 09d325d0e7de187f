"""Each layout of people's folders, read by `gald data verify`; and what is ambiguous or missing."""

import json
import shutil
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest

from gald.data.folder import Folder, FolderDataModule
from gald.data.pairs import note_rejects
from gald.data.reading.sample_error import SampleError

NAMES = ("background", "road", "car")
COLOURS = np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)
YAML = "classes: [{name: background, ids: [0]}, {name: road, ids: [1]}, {name: car, ids: [2]}]"
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ncar:0,0,142::\n"
CSV = "Pixel Value, Class\n0, background\n1, road\n2, car\n"


def sample(seed=0):
    return fake.sample(np.random.default_rng(seed), range(3))


def write(root, image, mask, seed=0, colours=False):
    """Write one image and its mask."""
    pixels, labels = sample(seed)
    fake.write_image(root / image, pixels)
    if colours:
        fake.write_image(root / mask, COLOURS[labels])
    else:
        fake.write_labels(root / mask, labels)


def write_all(root, image="images/SPLIT/{}.jpg", mask="masks/SPLIT/{}.png", names=("train", "val")):
    """Write two images of each split by patterns of the paths, and classes.yaml."""
    for seed, (split, i) in enumerate((split, i) for split in names for i in "ab"):
        name = f"{split}_{i}"
        write(root, *(p.replace("SPLIT", split).format(name) for p in (image, mask)), seed)
    (root / "classes.yaml").write_text(YAML)
    return root


def write_list(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def voc(root):
    write_all(root, "JPEGImages/{}.jpg", "SegmentationClass/{}.png")
    fake.write_image(root / "JPEGImages" / "without_mask.jpg", sample()[0])
    for split in ("train", "val"):
        names = [f"{split}_a", f"{split}_b"]
        write_list(root / "ImageSets" / "Segmentation" / f"{split}.txt", *names)
    write_list(root / "ImageSets" / "Main" / "train.txt", "nothing 1")


def cvat(root):
    for seed, name in enumerate(("train a", "sub/train_b", "val_a", "val_b")):
        paths = f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"
        write(root, *paths, seed, colours=True)
        fake.write_image(root / "SegmentationObject" / f"{name}.png", sample()[0])
    write_list(root / "ImageSets/Segmentation/train.txt", '"train a"', "sub/train_b")
    write_list(root / "ImageSets/Segmentation/val.txt", "val_a", "val_b")
    (root / "labelmap.txt").write_text(LABELMAP)


def roboflow(root):
    write_all(root, "SPLIT/{}_jpg.rf.0a1.jpg", "SPLIT/{}_jpg.rf.0a1_mask.png", ("train", "valid"))
    (root / "classes.yaml").unlink()
    for split in ("train", "valid"):
        (root / split / "_classes.csv").write_text(CSV)


def patterns(*paths):
    return lambda root: write_all(root, *paths)


# writer, and what the line about the layout says
LAYOUTS = {
    "by kind": (patterns(), "train, val in images/SPLIT and masks/SPLIT, a.jpg with a.png"),
    "by split": (
        patterns("SPLIT/images/{}.jpg", "SPLIT/masks/{}.png"),
        "train, val in SPLIT/images and SPLIT/masks, a.jpg with a.png",
    ),
    "mmsegmentation": (
        patterns("img_dir/SPLIT/{}.jpg", "ann_dir/SPLIT/{}.png"),
        "train, val in img_dir/SPLIT and ann_dir/SPLIT, a.jpg with a.png",
    ),
    "other suffix": (
        patterns("images/SPLIT/{}.png", "labels/SPLIT/{}_label.png"),
        "train, val in images/SPLIT and labels/SPLIT, a.jpg with a_label.png",
    ),
    "camvid": (
        patterns("SPLIT/{}.png", "SPLITannot/{}.png"),
        "train, val in SPLIT and SPLITannot, a.jpg with a.png",
    ),
    "beside": (patterns("SPLIT/{}.JPG", "SPLIT/{}.png"), "train, val in SPLIT, a.jpg with a.png"),
    "beside, png": (
        patterns("SPLIT/x/{}.png", "SPLIT/x/{}_mask.png"),
        "train, val in SPLIT, a.jpg with a_mask.png",
    ),
    "roboflow": (
        roboflow,
        "train, val in SPLIT, a.jpg with a_mask.png, classes of _classes.csv",
    ),
    "voc": (
        voc,
        "train, val in JPEGImages and SegmentationClass, listed in "
        "ImageSets/Segmentation/SPLIT.txt, a.jpg with a.png, classes of classes.yaml",
    ),
    "cvat": (
        cvat,
        "train, val in JPEGImages and SegmentationClass, listed in "
        "ImageSets/Segmentation/SPLIT.txt, a.jpg with a.png, classes of labelmap.txt",
    ),
}


@pytest.fixture
def verify(gald_cli, capsys):
    """Return a function that verifies a folder; it returns the code, stdout, stderr and report."""

    def call(root, *overrides):
        report = root.with_name("report.json")
        report.unlink(missing_ok=True)
        words = [f"data.root={root}", *overrides, "--output", str(report)]
        with pytest.raises(SystemExit) as end:
            gald_cli("data", "verify", "folder", *words)
        out, err = capsys.readouterr()
        return end.value.code, out, err, json.loads(report.read_text())

    return call


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_found(name, zipped, tmp_path, verify):
    root = tmp_path / "data"
    writer, line = LAYOUTS[name]
    writer(root)
    if zipped:
        fake.pack(root, tmp_path / "data.zip", "mine")
        root = tmp_path / "data.zip" / "mine"
        data = FolderDataModule(str(root))
        assert data.class_names == NAMES
        assert [len(data.make_dataset(split)) for split in ("train", "val")] == [2, 2]
        return
    code, out, err, report = verify(root)
    assert code == 0, out
    assert [report[f"{split}/scenes"] for split in ("train", "val")] == [2, 2]
    (said,) = (text for text in err.splitlines() if text.startswith(f"{root}: "))
    assert said.startswith(f"{root}: {line}"), said
    dataset = Folder(root)
    assert dataset.class_names == NAMES
    masks = {dataset.image_name(i): dataset[i]["mask"].numpy() for i in range(len(dataset))}
    first = next(key for key in masks if "a" in key.replace("train", ""))
    assert np.array_equal(masks[first], sample(0)[1])


@pytest.mark.parametrize(
    ("image", "mask", "key"),
    [
        ("{}.jpg", "{}.png", "a.jpg with a.png"),
        ("{}.png", "{}_mask.png", "a.jpg with a_mask.png"),
        ("images/{}.jpg", "masks/{}.png", "in images and masks"),
        ("imgs/{}.jpg", "masks/{}_gt.png", "in imgs and masks, a.jpg with a_gt.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "in JPEGImages and SegmentationClass"),
    ],
)
def test_one_set_of_images_is_found(image, mask, key, tmp_path, capsys):
    root = write_all(tmp_path / "data", image, mask, ("x", "y", "z"))
    data = FolderDataModule(str(root))
    assert key in capsys.readouterr().err
    assert len(data.make_dataset("train")) == 6 and not data.has_test


def test_one_set_of_images_needs_val_fraction(tmp_path, verify):
    root = write_all(tmp_path / "data", "{}.jpg", "{}.png", ("x", "y", "z"))
    code, out, _, report = verify(root)
    assert code == 1 and report["train/scenes"] == 6
    assert "no val images and masks at" in out and "set data.val_fraction=0.2" in out
    code, out, _, report = verify(root, "data.val_fraction=0.3")
    assert code == 0, out
    assert [report[f"{split}/scenes"] for split in ("train", "val")] == [4, 2]
    splits = [Folder(root, split, val_fraction=0.3) for split in ("train", "val", "train+val")]
    names = [{s.name for s in dataset.samples} for dataset in splits]
    assert not names[0] & names[1] and names[0] | names[1] == names[2] and len(names[2]) == 6


def test_the_default_list_of_cvat_is_train(tmp_path):
    cvat(tmp_path)
    lists = tmp_path / "ImageSets/Segmentation"
    (lists / "train.txt").rename(lists / "default.txt")
    assert len(Folder(tmp_path)) == 2
    (lists / "val.txt").unlink()
    assert len(Folder(tmp_path, "val", val_fraction=0.5)) == 1


# keys


def test_keys_set_any_layout(tmp_path, verify):
    root = write_all(tmp_path / "data", "photos/{}_photo.jpg", "truth/SPLIT/{}_truth.png")
    for split in ("train", "val"):
        write_list(root / "lists" / f"{split}.txt", f"{split}_a.png")
    keys = ["data.images=photos", "data.masks=truth/SPLIT", "data.lists=lists/SPLIT.txt"]
    keys += ["data.image_suffix=_photo.jpg", "data.mask_suffix=_truth"]
    code, out, err, report = verify(root, *keys)
    assert code == 0, out
    assert [report[f"{split}/scenes"] for split in ("train", "val")] == [1, 1]
    assert "photos and truth/SPLIT, listed in lists/SPLIT.txt, a_photo.jpg with a_truth.png" in err


def test_keys_win_over_a_layout_that_is_found(tmp_path):
    root = write_all(tmp_path)
    write(root, "more/x.jpg", "other/x_mask.png")
    options = {"images": "more", "masks": "other", "mask_suffix": "_mask.png"}
    assert [s.name for s in Folder(root, **options).samples] == ["x"]
    write_list(root / "some.txt", "x")
    shutil.copytree(root / "more", root / "imgs")
    with pytest.raises(
        FileNotFoundError, match=r"looked for images and masks, listed in some\.txt"
    ):
        Folder(tmp_path / "none", classes=str(root / "classes.yaml"), lists="some.txt")


def test_one_folder_of_masks_may_serve_all_splits(tmp_path):
    root = write_all(tmp_path, "images/SPLIT/{}.jpg", "all/{}.png")
    assert len(Folder(root, images="images/SPLIT", masks="all")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "x"}, r"data\.images is x but data\.masks is not set; set both"),
        ({"masks": "x"}, r"data\.masks is x but data\.images is not set; set both"),
        ({"images": "../x", "masks": "y"}, r"data\.images \(\.\./x\) leads out of data\.root"),
        ({"images": "x", "masks": "/y"}, r"data\.masks \(/y\) leads out of data\.root"),
        ({"lists": "/etc/passwd"}, r"data\.lists \(/etc/passwd\) leads out of data\.root"),
        ({"val_fraction": 1.0}, r"data\.val_fraction is 1\.0; it must be between 0 and 1"),
        ({"val_fraction": "few"}, r"data\.val_fraction is few; it must be between 0 and 1"),
        ({"val_fraction": 0.2}, r"val_fraction is 0\.2, but .* a val split \(images/val and mask"),
        ({"mask_suffix": 1}, r"mask_suffix is 1, which is not text; .*'data\.mask_suffix=\"1\"'"),
    ],
)
def test_keys_that_do_not_fit_are_refused(options, message, tmp_path):
    root = write_all(tmp_path)
    with pytest.raises(ValueError, match=message):
        Folder(root, **options)


# ambiguous


def pasted(error):
    """Return the two alternatives of keys in a message, as options of `Folder`."""
    *_, text = str(error.value).partition("; add ")
    choices = text.split(" or ")
    return [
        {k: v.strip("'") for k, v in (word[5:].split("=") for word in choice.split())}
        for choice in choices
    ]


def test_two_layouts_are_refused_and_the_keys_in_the_message_decide(tmp_path):
    root = write_all(tmp_path)
    write_all(root, "img_dir/SPLIT/{}.jpg", "ann_dir/SPLIT/{}.png", ("train",))
    with pytest.raises(ValueError, match="images/SPLIT and masks/SPLIT or in img_dir/SPL") as error:
        FolderDataModule(str(root))
    assert "\n" not in str(error.value)
    first, second = pasted(error)
    assert "images/train" in str(Folder(root, **first).samples[0].image)
    assert "img_dir/train" in str(Folder(root, **second).samples[0].image)


def test_two_suffixes_are_refused_and_the_keys_in_the_message_decide(tmp_path):
    root = write_all(tmp_path, "SPLIT/{}.jpg", "SPLIT/{}.png")
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(ValueError, match=r"could be named a\.png or a_mask\.png") as error:
        Folder(root)
    first, second = pasted(error)
    assert first == {"mask_suffix": ""} and second == {"mask_suffix": "_mask"}
    for path in root.rglob("*_mask.png"):
        path.unlink()
    assert len(Folder(root, **first)) == 2
    with pytest.raises(FileNotFoundError):
        Folder(root, **second)


def test_two_names_of_a_split_are_refused(tmp_path):
    root = write_all(tmp_path, names=("train", "val", "valid"))
    with pytest.raises(
        ValueError, match=r"images/val and .*images/valid could both be val; rename"
    ):
        Folder(root, "val")


def test_folders_without_pairs_do_not_count(tmp_path):
    root = write_all(tmp_path)
    for split in ("train", "val"):  # boxes of YOLO
        write_list(root / "labels" / split / f"{split}_a.txt", "0 0.5 0.5 1 1")
    assert len(Folder(root)) == 2


# missing


def test_a_folder_without_images_lists_what_was_looked_for(tmp_path):
    (tmp_path / "classes.yaml").write_text(YAML)
    with pytest.raises(FileNotFoundError) as error:
        Folder(tmp_path)
    for part in (
        "images/train and masks/train or train/images",
        "img_dir/train and ann_dir/train",
        "JPEGImages and SegmentationClass, listed in ImageSets/Segmentation/train.txt",
        "set data.images and data.masks, or data.root",
    ):
        assert part in str(error.value)


def test_files_without_partner_and_names_of_a_list_are_named(tmp_path):
    voc(tmp_path)
    (tmp_path / "SegmentationClass/train_a.png").unlink()
    write_list(tmp_path / "ImageSets/Segmentation/train.txt", "train_a", "gone", "val_a", "val_a")
    with note_rejects() as rejects:
        assert [s.name for s in Folder(tmp_path).samples] == ["val_a"]
    assert [text.partition(" ")[2] for text in sorted(rejects)] == [
        "names gone, but there is no gone.png or .jpg in "
        f"{tmp_path}/JPEGImages; restore image and mask, or delete the line",
        "names val_a twice; delete one of the lines",
        f"{tmp_path}/JPEGImages/train_a.jpg has no mask train_a.png in "
        f"{tmp_path}/SegmentationClass; add the mask, remove the image or set data.mask_suffix",
    ]


def test_an_image_beside_without_mask_is_named(tmp_path):
    root = write_all(tmp_path, "SPLIT/{}.png", "SPLIT/{}_mask.png")
    (root / "train" / "train_a_mask.png").unlink()
    with pytest.raises(SampleError, match=r"train_a\.png has no mask train_a_mask\.png"):
        Folder(root)


# lists of classes


def test_classes_yaml_wins_and_data_classes_decides(tmp_path):
    root = tmp_path / "data"
    cvat(root)
    assert Folder(root).class_names == NAMES
    (root / "classes.yaml").write_text(
        "classes: [{name: car, colours: [[0, 0, 142]]}]\nvoid: rest\n"
    )
    assert Folder(root).class_names == ("car",)
    assert Folder(root, classes="labelmap.txt").class_names == NAMES


def test_different_lists_of_classes_are_refused(tmp_path):
    roboflow(tmp_path)
    path = tmp_path / "valid" / "_classes.csv"
    path.write_text(CSV.replace("car", "lorry"))
    with pytest.raises(ValueError, match=r"two different lists .*train/_classes\.csv and valid"):
        Folder(tmp_path)
    assert Folder(tmp_path, classes="train/_classes.csv").class_names == NAMES


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labelmap.txt", "road:1,2::\n", r"line 1 of .*labelmap\.txt is 'road:1,2::'; write name:"),
        ("labelmap.txt", "road:::\n", r"line 1 of .*labelmap\.txt is 'road:::'; write name:"),
        ("labelmap.txt", "road\n", r"line 1 of .*labelmap\.txt is 'road'; write name:"),
        ("labelmap.txt", "a:1,2,300::\n", r"class 1 \(a\) of .* has the colour \[1, 2, 300\]"),
        ("labelmap.txt", "a:1,2,3::\nb:1,2,3::\n", r"class 2 \(b\) of .* has \(1, 2, 3\), and so"),
        ("labelmap.txt", "a:1,2,3::\na:1,2,4::\n", r"class 2 \(a\) of .* has the name of class 1"),
        ("labelmap.txt", "", r"labelmap\.txt lists no classes"),
        ("labelmap.txt", b"caf\xe9:1,2,3::\n", r"labelmap\.txt is not UTF-8 text"),
        ("_classes.csv", "Pixel Value, Class\n1\n", r"line 2 of .*_classes\.csv is '1'; write the"),
        ("_classes.csv", "0, a\nx, b\n", r"line 2 of .*_classes\.csv is 'x, b'; write the id"),
        ("_classes.csv", "0, a\n300, b\n", r"class 2 \(b\) of .* has the id 300"),
        ("_classes.csv", "0, a\n0, b\n", r"class 2 \(b\) of .* has 0, and so has class 1"),
    ],
)
def test_a_mistake_in_a_tools_list_names_the_line(name, text, message, tmp_path):
    path = Path(tmp_path, name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        Folder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_colour_that_labelmap_lacks_says_how_to_make_it_void(tmp_path):
    cvat(tmp_path)
    path = tmp_path / "SegmentationClass/train a.png"
    assert cv2.imwrite(str(path), np.full((24, 32, 3), 224, np.uint8))
    dataset = Folder(tmp_path)
    with pytest.raises(SampleError, match=r"labelmap\.txt does not list; .* write .*classes\.yaml"):
        [dataset[i] for i in range(2)]
