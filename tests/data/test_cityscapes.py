import hashlib
import shutil

import cv2
import fake
import numpy as np
import pytest

from gald.data.cityscapes import Cityscapes, CityscapesDataModule
from gald.data.labels import stored_labels
from gald.data.pairs import note_rejects
from gald.data.reading.sample_error import SampleError
from gald.data.transforms import TrainTransform


@pytest.fixture
def root(tmp_path):
    return fake.cityscapes(tmp_path / "cityscapes")


# class attributes


def test_labels_names_and_colours_agree_with_the_published_table(published):
    rows = published("cityscapes")
    # -1, the licence plate, is 255 in a byte
    assert Cityscapes.label_map == {row["id"] % 256: row["train_id"] for row in rows}
    kept = [row for row in rows if row["train_id"] != 255]
    assert Cityscapes.class_names == tuple(row["name"] for row in kept)
    assert Cityscapes.palette == tuple(tuple(row["color"]) for row in kept)


def test_labels_names_and_colours_are_unchanged_since_the_comparison():
    facts = Cityscapes.class_names, Cityscapes.palette, sorted(Cityscapes.label_map.items())
    assert hashlib.sha256(repr(facts).encode()).hexdigest()[:16] == "57c9deac88d81e8a"
    assert len(Cityscapes.class_names) == len(Cityscapes.palette) == 19
    names = {
        label: Cityscapes.class_names[i] for label, i in Cityscapes.label_map.items() if i < 19
    }
    assert (names[7], names[11], names[24], names[26], names[33]) == (
        *("road", "building", "person", "car", "bicycle"),
    )
    assert Cityscapes.label_map[9] == Cityscapes.label_map[0] == 255


def test_published_counts_agree_with_the_official_lists(real_data):
    for part in ("train", "val"):
        listing = real_data / "splits" / f"cityscapes_{part}.txt"
        if not listing.is_file():
            pytest.skip(f"no list {listing}")
        assert (len(listing.read_text().split()),) == Cityscapes.published_counts[part]


def test_labels_survive_conversion_to_train_ids_and_back():
    table = stored_labels(Cityscapes.label_map)
    kept = {label: i for label, i in Cityscapes.label_map.items() if i != 255}
    assert len(kept) == 19 and all(table[i] == label for label, i in kept.items())


# files


def test_labels_are_mapped_from_label_ids(root):
    dataset = Cityscapes(root, "val")
    assert dataset.image_name(0) == "valburg0_000000_000019"
    assert [dataset.image_name(i) for i in range(3)] == [s.name for s in sorted(dataset.samples)]
    stored = cv2.imread(str(dataset.samples[1].mask), cv2.IMREAD_UNCHANGED)
    mask = dataset[1]["mask"].numpy()
    assert dataset.samples[1].mask.name == "valburg0_000002_000019_gtFine_labelIds.png"
    for label, train_id in ((7, 0), (8, 1), (17, 5), (33, 18), (0, 255), (16, 255), (30, 255)):
        assert (stored == label).any() and set(mask[stored == label]) == {train_id}


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 6), ("val", 3), ("test", 2), ("train_extra", 4), ("train+val", 9)],
)
def test_splits_are_found_and_can_be_joined(root, split, count):
    assert len(Cityscapes(root, split)) == count


def test_coarse_labels_follow_the_fine_ones(root):
    samples = Cityscapes(root, "train+train_extra").samples
    assert [sample.mask.parts[-4] for sample in samples] == ["gtFine"] * 6 + ["gtCoarse"] * 4


@pytest.mark.parametrize("extracted", [(), ("leftImg8bit",), ("gtFine", "gtCoarse")])
def test_zips_and_folders_give_the_same_samples(root, tmp_path, extracted):
    zipped = fake.cityscapes(tmp_path / "zipped", zipped=True)
    for folder in extracted:
        shutil.copytree(root / folder, zipped / folder)
        for archive in zipped.glob(f"{folder}*.zip"):
            archive.unlink()
    for split in ("train", "train_extra"):
        ours, theirs = Cityscapes(root, split), Cityscapes(zipped, split)
        assert len(ours) == len(theirs)
        for i in range(len(ours)):
            assert ours.image_name(i) == theirs.image_name(i)
            assert ours[i]["image"].equal(theirs[i]["image"])
            assert ours[i]["mask"].equal(theirs[i]["mask"])


def test_module_trains_on_train_and_evaluates_only_val(root):
    transform = TrainTransform([16, 16])
    module = CityscapesDataModule(
        str(root),
        "train+train_extra",
        train_transform=transform,
        global_batch_size=2,
        num_workers=0,
    )
    module.setup()
    assert (len(module.train_dataset), len(module.val_dataset)) == (10, 3)
    assert module.test_dataset is None
    batches = list(module.train_dataloader())
    assert len(batches) == 5 and batches[0]["image"].shape == (2, 3, 16, 16)


# errors


def test_missing_root_names_every_searched_path_and_how_to_get_the_data(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        Cityscapes(tmp_path / "nowhere")
    text = str(error.value)
    assert "\n" not in text
    for part in (
        f"no Cityscapes at {tmp_path / 'nowhere'} (looked for leftImg8bit/train or "
        "leftImg8bit_trainvaltest.zip/leftImg8bit/train in it)",
        *("data.root", "GALD_DATA", "cityscapes/", "gald data prepare cityscapes"),
    ):
        assert part in text


@pytest.mark.parametrize(
    ("split", "folder", "archive"),
    [("val", "gtFine", "gtFine_trainvaltest.zip"), ("train_extra", "gtCoarse", "gtCoarse.zip")],
)
def test_missing_labels_name_their_own_folder_and_zip(root, split, folder, archive):
    shutil.rmtree(root / folder)
    with pytest.raises(FileNotFoundError) as error:
        Cityscapes(root, split)
    assert f"looked for {folder}/{split} or {archive}/{folder}/{split} in it" in str(error.value)


def test_image_without_mask_names_image_and_mask(root):
    image, mask = Cityscapes(root, "train").samples[4][1:]
    mask.unlink()
    with pytest.raises(SampleError) as error:
        Cityscapes(root, "train")
    text = str(error.value)
    assert f"image {image} has no mask {mask.name} in" in text and "restore the mask" in text


def test_mask_without_image_names_mask_and_image(root):
    image, mask = Cityscapes(root, "train").samples[4][1:]
    image.unlink()
    with pytest.raises(SampleError) as error:
        Cityscapes(root, "train")
    text = str(error.value)
    assert f"mask {mask} has no image {image.name} in" in text and "restore the image" in text


def test_note_rejects_collects_all_files_without_partner(root):
    samples = Cityscapes(root, "train").samples
    samples[0].mask.unlink()
    samples[1].image.unlink()
    samples[2].image.unlink()
    with note_rejects() as rejects:
        dataset = Cityscapes(root, "train")
    assert len(rejects) == 3 and len(dataset) == 3


def test_split_without_images_is_refused(root):
    for sample in Cityscapes(root, "val").samples:
        sample.image.unlink()
        sample.mask.unlink()
    with pytest.raises(SampleError, match=r"val of Cityscapes at .* has no images"):
        Cityscapes(root, "train+val")


def test_two_images_of_one_name_are_refused(root):
    image = Cityscapes(root, "val").samples[0].image
    copy = image.parents[1] / "elsewhere" / image.name
    copy.parent.mkdir()
    shutil.copy(image, copy)
    with pytest.raises(SampleError, match=r"are both called valburg0_000000_000019; remove one"):
        Cityscapes(root, "val")


def test_metadata_files_of_macos_are_ignored(root):
    image = Cityscapes(root, "val").samples[0].image
    image.with_name(f"._{image.name}").write_bytes(b"attributes")
    assert len(Cityscapes(root, "val")) == 3


def test_unknown_label_names_mask_and_value(root):
    dataset = Cityscapes(root, "train")
    fake.write_labels(dataset.samples[0].mask, np.full((24, 32), 77))
    with pytest.raises(SampleError) as error:
        dataset[0]
    text = str(error.value)
    assert f"mask {dataset.samples[0].mask} has label 77" in text and "\n" not in text


def test_unknown_split_names_the_choices(root):
    with pytest.raises(ValueError, match=r"split \(coarse\).*train, val, test, train_extra"):
        Cityscapes(root, "coarse")
