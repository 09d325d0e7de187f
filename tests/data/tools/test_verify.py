import json

import fake
import numpy as np
import pytest

from gald.data.camvid import CamVid, CamVidDataModule
from gald.data.synthetic import SyntheticDataModule
from gald.data.tools.verify import inspect_split, verify


@pytest.fixture
def toy(camvid, monkeypatch):
    """Data module of the toy CamVid, with its own numbers of images as published counts."""
    monkeypatch.setattr(CamVid, "published_counts", {"train": (7,), "val": (3, 4), "test": (2,)})
    return CamVidDataModule(str(camvid))


def read_report(path):
    return json.loads(path.read_text())


def test_a_valid_dataset_has_no_problems(toy, capsys, tmp_path):
    assert verify(toy, "camvid", output=tmp_path / "new" / "report.json") == 0
    out = capsys.readouterr().out
    assert "label map: 0->Sky, 1->Building" in out and "10->Bicyclist; void: 11" in out
    assert "32x24" in out and "problem in" not in out and "3 or 4" in out
    report = read_report(tmp_path / "new" / "report.json")
    counts = [report[f"{split}/scenes"] for split in ("train", "val", "test")]
    assert counts == [7, 3, 2]
    assert out.endswith("camvid: no problems found\n")
    labels = np.stack([toy.make_dataset("val").pixels(i).labels for i in range(3)])
    share = (labels == 3).sum() / (labels != 11).sum()
    assert report["val/share/Road"] == pytest.approx(share)
    assert report["val/share/void"] == pytest.approx((labels == 11).mean())


def with_unknown_label(mask):
    mask = mask.copy()
    mask[0, 0] = 77
    return mask


def damage(root):
    """Damage four train samples: no mask, truncated, unknown label, another size."""
    (root / "trainannot" / "train_00.png").unlink()
    cut = root / "train" / "train_01.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    mask = CamVid(root, "val").pixels(0).labels
    fake.write_labels(root / "trainannot" / "train_02.png", with_unknown_label(mask))
    fake.write_labels(root / "trainannot" / "train_03.png", mask[:20])


@pytest.mark.parametrize("lists", [True, False])
def test_all_damage_is_found_in_one_run(lists, camvid, toy, capsys):
    damage(camvid)
    if not lists:
        (camvid / "train.txt").unlink()
    assert verify(toy, "camvid") == 1
    out = capsys.readouterr().out
    lines = [x for x in out.splitlines() if x.startswith("problem in train: ")]
    expected = [
        "train_00.png has no mask",
        "train_01.png is truncated",
        "train_02.png has label 77, known are 0..11",
        "train_03.png is 32x24 but mask",
        "found 6 images with masks, 7 are published",
    ]
    assert len(lines) == len(expected)
    assert all(any(words in line for line in lines) for words in expected)
    assert out.endswith("camvid: 5 problems found\n")


def test_the_first_ten_problems_are_listed_and_the_others_counted(toy, camvid, capsys, tmp_path):
    mask = CamVid(camvid, "val").pixels(0).labels
    for i in range(13):
        fake.write_image(camvid / "train" / f"more_{i:02d}.png", np.zeros((24, 32, 3), np.uint8))
        fake.write_labels(camvid / "trainannot" / f"more_{i:02d}.png", with_unknown_label(mask))
    (camvid / "train.txt").unlink()
    assert verify(toy, "camvid", "train", output=tmp_path / "report.json") == 1
    out = capsys.readouterr().out
    assert out.count("problem in train: ") == 10
    assert "and 4 more problems in train" in out  # 13 labels and the number of images
    assert len(read_report(tmp_path / "report.json")["train/problem sentences"]) == 14


def test_a_missing_split_does_not_hide_problems_of_the_others(toy, camvid, capsys):
    (camvid / "val").rename(camvid / "elsewhere")
    damage_of_train = camvid / "train" / "train_01.png"
    damage_of_train.write_bytes(b"")
    assert verify(toy, "camvid") == 1
    out = capsys.readouterr().out
    assert "problem in val: no CamVid at" in out and "problem in train: " in out


def test_a_missing_dataset_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no CamVid at .*nowhere"):
        verify(CamVidDataModule(str(tmp_path / "nowhere")), "camvid")


def test_splits_that_training_does_not_use_may_be_missing(toy, camvid, monkeypatch, capsys):
    monkeypatch.setattr(CamVid, "splits", ("train", "val", "test", "extra"))
    assert verify(toy, "camvid") == 0
    for folder in ("train", "trainannot"):
        (camvid / folder.replace("train", "extra")).symlink_to(camvid / folder)
    assert verify(toy, "camvid") == 0
    assert "read extra" in capsys.readouterr().err


def test_the_test_split_is_skipped_if_its_labels_are_not_public(toy, camvid, monkeypatch):
    fake.write_labels(camvid / "testannot" / "test_00.png", np.full((24, 32), 77))
    assert verify(toy, "camvid") == 1
    monkeypatch.setattr(CamVidDataModule, "has_test", False)
    assert verify(toy, "camvid") == 0


def test_a_subset_is_accepted_with_the_option(toy, camvid, capsys):
    for path in camvid.glob("*/val_01.png"), camvid.glob("*annot/val_01.png"):
        for file in list(path):
            file.unlink()
    (camvid / "val.txt").unlink()
    assert verify(toy, "camvid") == 1
    assert "found 2 images with masks, 3 or 4 are published; restore" in capsys.readouterr().out
    assert verify(toy, "camvid", subset=True) == 0


def test_published_counts_of_joined_splits_are_added(toy):
    assert inspect_split(toy, "train+val").published_counts == (10, 11)


def test_a_duplicate_name_is_a_problem(toy, camvid):
    listing = camvid / "train.txt"
    lines = listing.read_text().splitlines()
    listing.write_text("\n".join([*lines[:6], lines[0]]))
    (problem,) = inspect_split(toy, "train").problems
    assert problem == "2 images have the name train_00; remove or rename all but one"


def test_hashes_change_only_with_names_and_labels(toy, camvid):
    first = inspect_split(toy, "train")
    fake.write_image(camvid / "train" / "train_00.png", np.zeros((24, 32, 3), np.uint8))
    image_changed = inspect_split(toy, "train")
    assert (image_changed.files, image_changed.labels) == (first.files, first.labels)
    fake.write_labels(camvid / "trainannot" / "train_00.png", np.zeros((24, 32)))
    labels_changed = inspect_split(toy, "train")
    assert labels_changed.files == first.files and labels_changed.labels != first.labels
    assert len(first.files) == len(first.labels) == 12


def test_hashes_do_not_depend_on_the_root(toy, camvid):
    first = inspect_split(toy, "train")
    moved = CamVidDataModule(str(camvid.rename(camvid.with_name("moved"))))
    again = inspect_split(moved, "train")
    assert (again.files, again.labels) == (first.files, first.labels)


def test_sizes_and_grey_images_are_reported(toy, camvid, capsys):
    mask = np.zeros((20, 60))
    fake.write_labels(camvid / "trainannot" / "train_00.png", mask)
    fake.write_image(camvid / "train" / "train_00.png", np.full((20, 60, 3), 9, np.uint8))
    facts = inspect_split(toy, "train").facts()
    assert (facts["smallest"], facts["median"], facts["largest"]) == ("32x24", "32x24", "60x20")
    assert (facts["different sizes"], facts["grey images"]) == (2, 1)


def test_classes_that_never_occur_are_named(toy, camvid, capsys):
    for path in (camvid / "testannot").iterdir():
        fake.write_labels(path, np.full((24, 32), 3))
    verify(toy, "camvid", "test")
    out = capsys.readouterr().out
    assert "never in test: Sky, Building, Pole, Pavement" in out


def test_any_other_error_is_reported_with_the_name_of_its_sample(toy, monkeypatch):
    def fail(self, index):
        raise OverflowError("too large")

    monkeypatch.setattr(CamVid, "pixels", fail)
    problems = inspect_split(toy, "test").problems
    assert problems[0] == "test_00 cannot be read (OverflowError: too large); replace its files"


def test_samples_without_files_are_read_too(capsys):
    data = SyntheticDataModule((32, 40), train_count=3, val_count=2, test_count=1)
    assert verify(data, "synthetic") == 0
    out = capsys.readouterr().out
    assert "hash of labels" in out
    assert "label map" not in out and "hash of names" not in out and "published" not in out


def test_a_report_is_not_overwritten(toy, tmp_path):
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(ValueError, match=r"report\.json exists; choose another --output"):
        verify(toy, "camvid", output=tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == "mine"
