import re

import cv2
import fake
import numpy as np
import pytest
import torch

from gald.data.camvid import CamVidDataModule
from gald.data.reading.sample_error import SampleError
from gald.data.tools.browse import browse, save_sheet
from gald.data.transforms import TrainTransform


@pytest.fixture
def toy(camvid, tmp_path):
    return CamVidDataModule(str(camvid), cache_dir=str(tmp_path / "cache"), num_workers=0)


@pytest.fixture
def chosen(monkeypatch):
    """Records the indices that are drawn."""
    calls = []
    monkeypatch.setattr(
        "gald.data.tools.browse.save_sheet", lambda path, dataset, chosen: calls.append(chosen)
    )
    return calls


@pytest.mark.parametrize(
    ("count", "indices"), [(1, [0]), (2, [0, 6]), (4, [0, 2, 4, 6]), (99, [*range(7)])]
)
def test_images_are_spread_over_the_split(count, indices, toy, chosen):
    browse(toy, "camvid", count=count)
    assert chosen == [indices]


def test_images_with_most_pixels_of_a_class_come_first(toy, camvid, chosen):
    for i, rows in enumerate([0, 3, 9, 0, 6, 0, 0]):
        mask = np.full((24, 32), 3)
        mask[:rows] = 8
        fake.write_labels(camvid / "trainannot" / f"train_{i:02d}.png", mask)
    browse(toy, "camvid", class_name="car", count=2)
    browse(toy, "camvid", class_name="Car")
    assert chosen == [[2, 4], [2, 4, 1]]
    with pytest.raises(ValueError, match="no image of train has Sky; choose another"):
        browse(toy, "camvid", class_name="Sky")


def test_an_unknown_class_is_reported_with_the_closest_one(toy):
    with pytest.raises(ValueError, match="no class 'pedestrain'; did you mean Pedestrian"):
        browse(toy, "camvid", class_name="pedestrain")
    with pytest.raises(ValueError, match="no class 'xyz'; choose one of Sky, Building"):
        browse(toy, "camvid", class_name="xyz")


def test_augment_draws_the_first_crops_of_a_training(toy, tmp_path, monkeypatch):
    toy.train_transform = TrainTransform([16, 16])
    toy.class_uniform = toy.copy_paste = 0.5
    toy.global_batch_size = 4
    drawn = []

    def record(path, dataset, chosen, items):
        drawn.append(([dataset.image_name(index) for index in chosen], list(items)))

    monkeypatch.setattr("gald.data.tools.browse.save_sheet", record)
    browse(toy, "camvid", count=3, augment=True)
    toy.setup("fit")
    batch = next(iter(toy.train_dataloader()))
    ((names, items),) = drawn
    assert names == batch["name"][:3] == [item["name"] for item in items]
    for n, item in enumerate(items):
        assert torch.equal(item["image"], batch["image"][n])
        assert torch.equal(item["mask"], batch["mask"][n])
    browse(toy, "camvid", class_name="Sky", count=2, augment=True)
    assert all(item["image"].shape == (3, 16, 16) for item in drawn[1][1])
    with pytest.raises(ValueError, match=r"--augment draws crops of train, but --split is val"):
        browse(toy, "camvid", "val", augment=True)


def count_near(figure, colour):
    return (np.abs(figure.astype(int) - colour).max(-1) <= 3).sum()


def test_labels_are_overlaid_on_the_image_except_void(toy, camvid, tmp_path):
    mask = np.full((24, 32), 3)
    mask[:, :16] = 11
    fake.write_labels(camvid / "trainannot" / "train_00.png", mask)
    fake.write_image(camvid / "train" / "train_00.png", np.full((24, 32, 3), (250, 10, 10), "u1"))
    save_sheet(tmp_path / "sheet.png", toy.make_dataset("train"), [0])
    figure = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    road = np.array(toy.palette[3])
    half = count_near(figure, 0.4 * np.array((250, 10, 10)) + 0.6 * road)
    assert half > 1000
    assert count_near(figure, (250, 10, 10)) == pytest.approx(half, rel=0.05)
    assert count_near(figure, road) > 50  # in the legend
    assert count_near(figure, toy.palette[8]) == 0  # no car in the image


def test_images_of_many_sizes_fit_one_sheet(toy, camvid, tmp_path):
    for i, size in enumerate([(700, 20), (20, 700), (1, 1)]):
        fake.write_image(camvid / "train" / f"train_{i:02d}.png", np.zeros((*size, 3), np.uint8))
        fake.write_labels(camvid / "trainannot" / f"train_{i:02d}.png", np.full(size, 11))
    path = browse(toy, "camvid", output=tmp_path / "sheet.png")
    height, width, _ = cv2.imread(str(path)).shape
    assert 500 < width < 3000 and 500 < height < 3000


def test_the_default_file_is_named_by_split_and_time(toy, chosen, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = browse(toy, "camvid", "val")
    assert re.fullmatch(r"runs/browse/camvid_val_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.png", str(path))
    assert capsys.readouterr().out == f"3 of 3 images: {path}\n"


def test_an_existing_file_is_not_overwritten(toy, tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    with pytest.raises(ValueError, match=r"mine\.png exists; choose another --output"):
        browse(toy, "camvid", output=tmp_path / "mine.png")
    with pytest.raises(ValueError, match=r"a\.jpg is not a png; choose a name that ends in \.png"):
        browse(toy, "camvid", output=tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="--count is 0; it must be at least 1"):
        browse(toy, "camvid", count=0)


def test_a_broken_image_is_named_and_leaves_no_file(toy, camvid, tmp_path):
    (camvid / "train" / "train_00.png").write_bytes(b"")
    with pytest.raises(SampleError, match=r"train_00\.png is truncated"):
        browse(toy, "camvid", output=tmp_path / "sheets" / "sheet.png")
    assert not (tmp_path / "sheets").exists()
