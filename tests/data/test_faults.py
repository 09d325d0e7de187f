"""Faults of data are seen by `gald data verify` and before training, or are handled."""

import os
import re
import shutil
import unicodedata
import zipfile
import zlib
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest
from PIL import Image, ImageOps

from gald.data.ade20k import ADE20K
from gald.data.camvid import CamVid, CamVidDataModule
from gald.data.checks import check_splits
from gald.data.coco_stuff import CocoStuff
from gald.data.folder import Folder, FolderDataModule
from gald.data.pascal_context import PascalContext59
from gald.data.reading import files
from gald.data.reading.image import read_image
from gald.data.reading.listing import list_files
from gald.data.reading.mask import read_labels
from gald.data.reading.sample_error import SampleError
from gald.data.synthetic import SyntheticDataModule
from gald.data.tools.class_report import print_classes
from gald.data.tools.verify import verify


def paths(root, split="train", index=0):
    """The image and the mask of one sample of the toy folder."""
    return (
        root / what / split / f"{index}{end}"
        for what, end in (("images", ".jpg"), ("masks", ".png"))
    )


def photo(path, orientation, size=(24, 32), **options):
    """Save a random photo with an orientation tag; return its stored pixels."""
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 255, (3, 4, 3), np.uint8), size[::-1])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95, **options)
    return pixels


def damage(path, how):
    """Damage the pixels of a large jpg or png, which keeps its end."""
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 255, (60, 80, 3), np.uint8), (640, 480))
    Image.fromarray(noise).save(path, quality=90)
    data = path.read_bytes()
    middle = len(data) // 2
    parts = {
        "zeros": (bytes(4096), 4096),
        "lost": (b"", 512),
        "ended early": (data[-2:], len(data)),
        "other bytes": (rng.bytes(2048).replace(b"\xff", b"\xfe"), 2048),
    }
    put, removed = parts[how]
    path.write_bytes(data[:middle] + put + data[middle + removed :])


def through_jpeg(path):
    """Compress a mask as jpg and save it as png again."""
    encoded = cv2.imencode(".jpg", cv2.imread(str(path), cv2.IMREAD_UNCHANGED))[1]
    assert cv2.imwrite(str(path), cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))


def all_masks(root, split, change):
    for path in sorted((root / "masks" / split).iterdir()):
        change(path)


def fill(label):
    return lambda path: fake.write_labels(path, np.full((24, 32), label))


def void_rest(root):
    listing = root / "classes.yaml"
    listing.write_text(listing.read_text().partition("void:")[0] + "void: rest\n")


def plant_turned(orientation, size=(24, 32), mask_size=None):
    def plant(root):
        image, mask = paths(root)
        photo(image, orientation, size)
        labels = np.random.default_rng(0).choice([0, 1, 2, 200], mask_size or size)
        fake.write_labels(mask, labels)

    return plant


def plant_one_class_listed(root):
    (root / "classes.yaml").write_text("classes: [{name: road, ids: [1]}]\nvoid: rest\n")


def plant_damage(how, suffix=".jpg"):
    def plant(root):
        image, mask = paths(root)
        image.unlink()
        damage(image.with_suffix(suffix), how)
        fake.write_labels(mask, np.random.default_rng(0).choice([0, 1, 2], (480, 640)))

    return plant


def plant_cut(what, index=0):
    def plant(root):
        path = list(paths(root, index=index))[what]
        path.write_bytes(path.read_bytes()[:-30])

    return plant


def plant_jpg_masks(root):
    for mask in sorted((root / "masks" / "train").iterdir()):
        Image.open(mask).convert("L").save(mask.with_suffix(".jpg"))
        mask.unlink()


def plant_jpg_called_png(root):
    _, mask = paths(root)
    Image.open(mask).convert("L").save(mask, format="jpeg")


def plant_masks_through_jpeg(root):
    void_rest(root)
    for split in ("train", "val", "test"):
        all_masks(root, split, through_jpeg)


def plant_other_labels(root):
    void_rest(root)
    change = {0: 10, 1: 11, 2: 12, 3: 13, 200: 201}
    for mask in sorted((root / "masks" / "val").iterdir()):
        labels = np.vectorize(change.get)(cv2.imread(str(mask), 0))
        labels[0, :2] = 1, 2
        fake.write_labels(mask, labels)


def plant_deep_image(root):
    image, _ = paths(root)
    image.unlink()
    deep = np.full((24, 32, 3), 4000, np.uint16)
    assert cv2.imwrite(str(image.with_suffix(".png")), deep)


def plant_deep_mask(root):
    _, mask = paths(root)
    labels = np.ones((24, 32), np.uint16)
    labels[3, 5] = 300
    assert cv2.imwrite(str(mask), labels)


def plant_copy(name, link=None):
    def plant(root):
        image, mask = paths(root)
        other, other_mask = paths(root, "val")
        for path in (other, other_mask):
            path.unlink()
        target = other.with_name(f"{name}.jpg")
        os.symlink(image, target) if link else shutil.copy(image, target)
        shutil.copy(mask, other_mask.with_name(f"{name}.png"))

    return plant


def plant_smaller_mask(root):
    _, mask = paths(root, index=3)
    fake.write_labels(mask, np.ones((20, 30)))


def plant_mask(image):
    def plant(root):
        image.save(list(paths(root))[1])

    return plant


def plant_dangling(root):
    image, _ = paths(root, index=3)
    image.unlink()
    image.symlink_to(root / "gone.jpg")


def plant_empty(root):
    next(paths(root, index=3)).write_bytes(b"")


def colours_with_alpha():
    return Image.merge("RGBA", [Image.new("L", (32, 24), 1)] * 3 + [Image.new("L", (32, 24), 9)])


AMBIGUOUS = r"0\.jpg has the EXIF orientation \d, and the size of mask .*0\.png does not show"
ONE = r"has one class \(road\), so any network scores mIoU 100; list everything else"
VOID = r"{} at .* has no labelled pixel: all masks of its \d images are void; correct the masks"
SINGLE = r"{} at .* has labels of one class only \(road\) .*; add images with other classes"
INSIDE = r"0\.jpg is damaged inside: .*; copy or download it again"
CUT = r"{} is truncated .*; copy or download it again"
LOSSY = r"mask .*0\.{} is not a png; save label maps as 8-bit grey png, because lossy"
SINGLE_PIXELS = r"mask .*0\.png has \d+ % single pixels with labels that only void: rest of .*"
HIDDEN = r"void: rest of .*classes\.yaml hides \d+ % of the pixels .*, more than 90 %; if the masks"
SAME = r"image .*train/0\.jpg of train and image .*val/{}\.jpg of val are the same picture"

# fault: how it is planted, and what `gald data verify` and the start of training say
FAULTS = {
    "a photo that is upside down": (plant_turned(3), AMBIGUOUS),
    "a mirrored photo": (plant_turned(2), AMBIGUOUS),
    "a turned square photo": (plant_turned(6, (24, 24)), AMBIGUOUS),
    "a turned photo with a mask of another size": (
        plant_turned(6, (24, 32), (20, 30)),
        r"0\.jpg is 24x32 but mask .*0\.png is 30x20",
    ),
    "one class listed": (plant_one_class_listed, ONE),
    "one class in train": (lambda r: all_masks(r, "train", fill(1)), SINGLE.format("train")),
    "one class in val": (lambda r: all_masks(r, "val", fill(1)), SINGLE.format("val")),
    "no label in train": (lambda r: all_masks(r, "train", fill(0)), VOID.format("train")),
    "no label in val": (lambda r: all_masks(r, "val", fill(0)), VOID.format("val")),
    "no label in test": (lambda r: all_masks(r, "test", fill(0)), VOID.format("test")),
    "a jpg with lost bytes": (plant_damage("lost"), INSIDE),
    "a jpg with zeros": (plant_damage("zeros"), INSIDE),
    "a jpg that ends early": (plant_damage("ended early"), INSIDE),
    "a jpg with other bytes": (plant_damage("other bytes"), INSIDE),
    "a damaged png": (plant_damage("other bytes", ".png"), r"0\.png cannot be decoded; replace it"),
    "a truncated jpg": (plant_cut(0, 3), CUT.format(r"3\.jpg")),
    "a truncated mask": (plant_cut(1, 3), CUT.format(r"3\.png")),
    "an empty file": (plant_empty, CUT.format(r"3\.jpg")),
    "masks in jpg": (plant_jpg_masks, LOSSY.format("jpg")),
    "a jpg called png": (plant_jpg_called_png, LOSSY.format("png")),
    "masks that went through jpg": (plant_masks_through_jpeg, SINGLE_PIXELS),
    "labels that nobody listed": (plant_other_labels, HIDDEN),
    "an image of 16 bits": (plant_deep_image, r"0\.png stores 16 bits per value, .*; convert it"),
    "a mask with label 300": (
        plant_deep_mask,
        r"16-bit png with label 300 in row 3, column 5; save",
    ),
    "the same picture": (plant_copy("0"), SAME.format("0")),
    "the same picture renamed": (plant_copy("other"), SAME.format("other")),
    "a link to a picture": (plant_copy("other", link=True), SAME.format("other")),
    "a mask of another size": (plant_smaller_mask, r"3\.jpg is 32x24 but mask .*3\.png is 30x20"),
    "a mask of colours": (
        plant_mask(Image.new("RGB", (32, 24), (1, 2, 3))),
        r"0\.png is an RGB png with colours; save it as 8-bit grey png",
    ),
    "a transparent mask": (
        plant_mask(colours_with_alpha()),
        r"0\.png is an RGBA png with transparent pixels; save it as 8-bit grey png",
    ),
    "a dangling link": (plant_dangling, r"3\.jpg is a link to .*gone\.jpg, which does not exist"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_by_verify_and_before_training(fault, tmp_path, capsys):
    plant, sentence = FAULTS[fault]
    root = fake.folder(tmp_path / "data")
    plant(root)
    data = FolderDataModule(str(root))
    assert verify(data, "folder") == 1
    problems = [x for x in capsys.readouterr().out.splitlines() if x.startswith("problem in ")]
    assert any(re.search(sentence, problem) for problem in problems), problems
    with pytest.raises(SampleError, match=sentence) as error:
        data.setup("fit")
        data.check(test=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["ids", "colours"])
def test_masks_that_went_through_jpg_are_seen_in_ids_and_colours(kind, tmp_path, capsys):
    root = fake.folder(tmp_path / "data", kind)
    void_rest(root)
    data = FolderDataModule(str(root))
    assert verify(data, "folder") == 0
    all_masks(root, "val", through_jpeg)
    assert verify(data, "folder") == 1
    out = capsys.readouterr().out
    assert re.search(f"problem in val: {SINGLE_PIXELS}", out) and "problem in train" not in out
    data.setup("fit")
    with pytest.raises(SampleError, match=SINGLE_PIXELS):
        data.check()


def test_a_reencoded_picture_in_two_splits_is_seen_by_verify(tmp_path, capsys):
    root = fake.folder(tmp_path / "data")
    image, mask = paths(root)
    other, other_mask = paths(root, "val")
    shutil.copy(mask, other_mask)
    other.unlink()
    fake.write_image(other.with_suffix(".png"), read_image(image))
    assert verify(FolderDataModule(str(root)), "folder") == 1
    assert "are the same picture" in capsys.readouterr().out


def test_final_training_on_train_and_val_is_no_fault(tmp_path, capsys):
    data = FolderDataModule(str(fake.folder(tmp_path / "data")), train_split="train+val")
    verify(data, "folder")
    assert "same picture" not in capsys.readouterr().out
    data.setup("fit")
    data.check(test=True)


def test_same_pictures_in_published_splits_are_a_note(camvid, monkeypatch, capsys):
    monkeypatch.setattr(CamVid, "published_counts", {"train": (7,), "val": (3,), "test": (2,)})
    for folder in ("{}", "{}annot"):
        train, val = (camvid / folder.format(s) / f"{s}_00.png" for s in ("train", "val"))
        shutil.copy(train, val)
    assert verify(CamVidDataModule(str(camvid)), "camvid") == 0
    assert re.search(r"note on val: image .* are the same picture", capsys.readouterr().out)


def test_damage_in_the_middle_is_seen_while_reading(tmp_path):
    root = fake.folder(tmp_path / "data")
    image, mask = paths(root, index=3)
    damage(image, "lost")
    fake.write_labels(mask, np.random.default_rng(0).choice([0, 1, 2], (480, 640)))
    data = FolderDataModule(str(root))
    data.setup("fit")
    data.check()
    with pytest.raises(SampleError, match=r"3\.jpg is damaged inside"):
        data.train_dataset[3]


def test_only_a_few_files_of_a_large_dataset_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("gald.data.checks._FEW_FILES", 10)
    root = fake.folder(tmp_path / "data")
    next(paths(root, index=3)).write_bytes(b"")
    data = FolderDataModule(str(root))
    data.setup("fit")
    data.check(test=True)
    shutil.copy(next(paths(root)), next(paths(root, "val")))
    with pytest.raises(SampleError, match=SAME.format("0")):
        data.check()
    next(paths(root, index=5)).write_bytes(b"")
    monkeypatch.setattr("gald.data.checks._FEW_FILES", 1)
    with pytest.raises(SampleError, match=r"5\.jpg is truncated"):  # the last item
        check_splits({"train": data.train_dataset})


@pytest.mark.parametrize("cache", ["none", "ram", "decoded"])
def test_valid_data_is_accepted_with_and_without_a_cache(cache, tmp_path, camvid):
    options = {"cache": cache, "cache_dir": str(tmp_path / "cache")}
    for data in (
        FolderDataModule(str(fake.folder(tmp_path / "data", "colours")), **options),
        CamVidDataModule(str(camvid), **options),
        SyntheticDataModule((32, 40), train_count=2, val_count=2, test_count=1, **options),
    ):
        data.setup("fit")
        data.check(test=True)


# photos


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("labelled", ["turned", "stored"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_image_and_mask_of_a_turned_photo_agree(orientation, labelled, suffix, tmp_path):
    """The mask is the photo's brightness; both are turned as Pillow turns them."""
    root = fake.folder(tmp_path / "data", "palette")
    image, mask = paths(root)
    image.unlink()
    image = image.with_suffix(f".{suffix}")
    photo(image, orientation, (20, 30))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(image)))
    source = shown if labelled == "turned" else read_image(image)
    fake.write_labels(mask, np.where(source[..., 0] > 127, 1, 2))
    item = Folder(root)[0]
    assert item["image"].shape == (3, 30, 20)
    assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), shown)
    expected = np.where(shown[..., 0] > 127, 0, 1)
    assert np.array_equal(item["mask"].numpy(), expected)


def test_masks_of_published_photos_follow_the_stored_pixels(tmp_path):
    assert not (ADE20K.follows_tags or CocoStuff.follows_tags or PascalContext59.follows_tags)
    root = fake.ade20k(tmp_path / "ade20k")
    image = root / "ADEChallengeData2016/images/training/ADE_train_00000001.jpg"
    stored = photo(image, 3)
    difference = ADE20K(root)[0]["image"].permute(1, 2, 0).numpy().astype(int) - stored
    assert abs(difference).max() < 40


# images and masks of every kind


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK"])
def test_images_of_every_mode_are_read_as_rgb(mode, tmp_path):
    rgb = cv2.resize(np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8), (32, 24))
    image = Image.fromarray(rgb).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert abs(read_image(path) - expected).max() <= 2


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("kind", ["grey", "palette"])
def test_masks_of_few_bits_store_indices(kind, depth, tmp_path):
    labels = np.random.default_rng(0).integers(0, 2**depth, (13, 21), np.uint8)
    path = tmp_path / "mask.png"
    if kind == "palette":
        image = Image.fromarray(labels)
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
        image.save(path, bits=depth)
    else:
        path.write_bytes(grey_png(labels, depth))
    assert path.read_bytes()[24:26] == bytes([depth, 3 if kind == "palette" else 0])
    assert np.array_equal(read_labels(path), labels)


def grey_png(labels, depth):
    """Encode grey values of few bits, which Pillow and OpenCV cannot write."""
    height, width = labels.shape
    bits = np.unpackbits(labels[..., None], axis=2)[..., -depth:].reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))

    def chunk(name, data):
        checksum = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + checksum

    header = b"".join(n.to_bytes(4, "big") for n in (width, height)) + bytes([depth, 0, 0, 0, 0])
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_masks_that_are_grey_in_another_mode_are_read(mode, tmp_path):
    labels = np.random.default_rng(0).integers(0, 256, (13, 21), np.uint8)
    image = Image.fromarray(labels)
    if mode == "I;16":
        image = Image.fromarray(labels.astype(np.uint16))
    image.convert(mode).save(tmp_path / "mask.png")
    assert np.array_equal(read_labels(tmp_path / "mask.png"), labels)


# names and lists


def test_files_of_systems_and_tools_are_ignored(tmp_path):
    root = fake.folder(tmp_path / ".hidden" / "data")
    image, mask = paths(root)
    for what, file in (("images", image), ("masks", mask)):
        for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "a/.thumbnails"):
            place = root / what / "train" / folder
            place.mkdir(parents=True)
            shutil.copy(file, place / f"copy{file.suffix}")
        for name in (f"._{file.name}", "Thumbs.db", ".DS_Store", "desktop.ini"):
            (root / what / "train" / name).write_bytes(b"no image")
    dataset = Folder(root)
    assert [dataset.image_name(i) for i in range(len(dataset))] == list("012345")
    fake.pack(root, tmp_path / "data.zip", "mine")
    assert len(Folder(tmp_path / "data.zip" / "mine")) == 6


@pytest.mark.parametrize(
    ("encoding", "end"),
    [("utf-8-sig", "\r\n"), ("utf-8", "  \n\n"), ("utf-8", "\t\r\n \r\n"), ("utf-8", "\r")],
)
def test_lists_of_every_editor_are_read(encoding, end, camvid):
    expected = [str(sample) for sample in CamVid(camvid, "train").samples]
    lines = (camvid / "train.txt").read_text().splitlines()
    (camvid / "train.txt").write_bytes(end.join([*lines, ""]).encode(encoding))
    assert [str(sample) for sample in CamVid(camvid, "train").samples] == expected
    (camvid / "train.txt").write_text("\n".join(lines).replace("/", "\\"))
    assert [str(sample) for sample in CamVid(camvid, "train").samples] == expected


def test_a_list_in_another_encoding_is_one_sentence(camvid):
    (camvid / "train.txt").write_bytes("train/ü.png".encode("utf-16"))
    with pytest.raises(SampleError, match=r"train\.txt is not UTF-8 text; save it as UTF-8"):
        CamVid(camvid, "train")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_stored_composed_or_apart(form, tmp_path, camvid):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    names = [unicodedata.normalize(f, "Straße_Zürich") for f in (form, other)]
    assert names[0] != names[1]
    root = fake.folder(tmp_path / "data")
    for path, name in zip(paths(root), names, strict=True):
        path.rename(path.with_name(f"{name}{path.suffix}"))
    assert len(Folder(root)) == 6
    for folder, name in zip(("train", "trainannot"), names, strict=True):
        (camvid / folder / "train_00.png").rename(camvid / folder / f"{name}.png")
    lines = (camvid / "train.txt").read_text().replace("train_00", names[1])
    (camvid / "train.txt").write_text(lines)
    assert len(CamVid(camvid, "train")) == 7


# derived files


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_a_changed_mask_of_the_same_size_and_time_is_decoded_again(place, tmp_path):
    root = fake.folder(tmp_path / "data")
    _, mask = paths(root)
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 0]
    labels = np.random.default_rng(0).choice([0, 1, 2], (24, 32)).astype(np.uint8)

    def module():
        if place == "folder":
            return FolderDataModule(str(root), cache="decoded", cache_dir=str(tmp_path / "cache"))
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for path in sorted(root.rglob("*.*")):
                archive.writestr(zipfile.ZipInfo(str(path.relative_to(root))), path.read_bytes())
        files._ARCHIVES.clear()
        root_in_zip = str(tmp_path / "data.zip")
        return FolderDataModule(root_in_zip, cache="decoded", cache_dir=str(tmp_path / "cache"))

    seen = []
    for change in (0, 1):
        changed = (labels + change).astype(np.uint8)
        before = mask.stat()
        assert cv2.imwrite(str(mask), changed, fast)
        if change:
            assert mask.stat().st_size == before.st_size
            os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
        data = module()
        data.setup("fit")
        seen.append(data.train_dataset[0]["mask"].numpy())
        assert np.array_equal(seen[-1], Folder(root)[0]["mask"].numpy())
    assert not np.array_equal(*seen)


def test_listed_files_do_not_depend_on_how_the_folder_is_hidden(tmp_path):
    fake.write_labels(tmp_path / ".data" / "a.png", np.zeros((4, 4)))
    assert [path.name for path in list_files(tmp_path / ".data")] == ["a.png"]
    assert list_files(tmp_path) == []


# the command line


@pytest.mark.parametrize("name", ["mein Ordner (ü)", "a=b,c", "[x] {y}", "it's", "2026"])
def test_any_folder_can_be_named_on_the_command_line(name, tmp_path, gald_cli, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fake.folder(Path(name))
    with pytest.raises(SystemExit) as stop:
        gald_cli("data", "verify", "folder", f"data.root={name}")
    assert stop.value.code == 0
    assert "folder: no problems found" in capsys.readouterr().out


def test_training_is_refused_in_one_sentence(tmp_path, gald_cli):
    root = fake.folder(tmp_path / "mein Ordner, [neu] (ü)")
    all_masks(root, "test", fill(0))
    with pytest.raises(SampleError, match=r"mein Ordner, \[neu\] \(ü\) has no labelled pixel"):
        gald_cli(
            "train",
            "data=folder",
            f"data.root={root}",
            f"output_dir={tmp_path / 'läuft (1)'}",
            "model.backbone.name=test_resnet",
        )
    assert not list((tmp_path / "läuft (1)").glob("checkpoints"))


def test_an_unquoted_value_is_refused_with_its_quoted_form(gald_cli):
    with pytest.raises(ValueError, match=r"note=a\(b cannot be read .* quote it .*: .*'a\(b'"):
        gald_cli("profile", "+note=a(b")


def test_names_are_never_read_as_markup(tmp_path, capsys, gald_cli):
    root = fake.folder(tmp_path / "[red]data[/x]")
    listing = root / "classes.yaml"
    for old, new in (("road", "[/road]"), ("vehicle", "[bold]:car:")):
        listing.write_text(listing.read_text().replace(f"name: {old}", f"name: '{new}'"))
    data = FolderDataModule(str(root), cache_dir=str(tmp_path / "cache"))
    assert verify(data, "folder") == 0
    gald_cli("data", "stats", "folder", f"data.root={root}", f"data.cache_dir={tmp_path}")
    out = capsys.readouterr().out
    assert out.count("[/road]") >= 3 and out.count("[bold]:car:") >= 3


def test_every_console_prints_names_as_they_are():
    source = Path(files.__file__).parents[2]
    for path in source.rglob("*.py"):
        for call in re.findall(r"\bConsole\(([^)]*)", path.read_text()):
            assert re.search(r"markup=False,\s*emoji=False", call), path


# statistics


def test_a_class_that_occurs_has_a_weight_and_a_share(tmp_path, capsys):
    root = fake.folder(tmp_path / "data")
    for path in sorted((root / "images" / "train").iterdir()):
        fake.write_image(path, np.zeros((1000, 1000, 3), np.uint8))
    mask = np.ones((1000, 1000), np.uint8)
    for path in sorted((root / "masks" / "train").iterdir()):
        fake.write_labels(path, mask)
    mask[0, :5], mask[1, 0] = 2, 200
    fake.write_labels(path, mask)
    print_classes(FolderDataModule(str(root), cache_dir=str(tmp_path)), "folder", "train")
    out = capsys.readouterr().out
    (listed,) = re.findall(r"^'loss\.main\.class_weight=\[(.*)\]'$", out, flags=re.MULTILINE)
    weights = [float(weight) for weight in listed.split(",")]
    assert weights == pytest.approx([5e-6, 1, 5], rel=1e-4)
    assert out.count("<0.01") == 2 and "0.0000" not in out
