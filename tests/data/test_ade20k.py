import hashlib
import shutil

import cv2
import fake
import numpy as np
import pytest

from gald.data.ade20k import ADE20K, ADE20KDataModule
from gald.data.labels import stored_labels
from gald.data.reading.sample_error import SampleError
from gald.data.transforms import TrainTransform

# objectInfo150.txt and the label maps, read with PIL
REAL = {
    "ADE_val_00000001": "wall building sky tree road grass plant",
    "ADE_val_00000002": "wall building sky tree earth plant",
    "ADE_val_00000003": "wall building sky tree road sidewalk car signboard bus streetlight "
    "escalator van",
}


@pytest.fixture
def root(tmp_path):
    return fake.ade20k(tmp_path / "ade20k")


# class attributes


def test_labels_names_and_colours_agree_with_the_published_table(published):
    rows = published("ade20k")
    assert ADE20K.label_map == {row["id"]: row["train_id"] for row in rows}
    kept = [row for row in rows if row["train_id"] != 255]
    assert ADE20K.class_names == tuple(row["name"].strip() for row in kept)
    assert ADE20K.palette == tuple(tuple(row["color"]) for row in kept)


def test_labels_names_and_colours_are_unchanged_since_the_comparison():
    facts = ADE20K.class_names, ADE20K.palette, sorted(ADE20K.label_map.items())
    assert hashlib.sha256(repr(facts).encode()).hexdigest()[:16] == "dc360e04de3216db"
    assert len(ADE20K.class_names) == len(ADE20K.palette) == 150
    assert ADE20K.label_map[0] == 255 and ADE20K.label_map[1] == 0 and ADE20K.label_map[150] == 149
    assert (ADE20K.class_names[0], ADE20K.class_names[149]) == ("wall", "flag")
    assert ADE20K.published_counts == {"train": (20210,), "val": (2000,)}


def test_labels_survive_conversion_to_train_ids_and_back():
    table = stored_labels(ADE20K.label_map)
    assert all(table[i] == label for label, i in ADE20K.label_map.items() if i != 255)


def test_real_samples_have_the_expected_classes(real_data):
    folder = real_data / "samples" / "ade20k"
    if not folder.is_dir():
        pytest.skip(f"no samples at {folder}")
    dataset = ADE20K(folder, "val")
    classes_of = {}
    for i in range(len(dataset)):
        item = dataset[i]
        assert item["image"].shape[1:] == item["mask"].shape
        ids = [i for i in item["mask"].unique().tolist() if i != 255]
        classes_of[item["name"]] = {ADE20K.class_names[i] for i in ids}
    assert classes_of == {name: set(classes.split()) for name, classes in REAL.items()}


# files


def test_label_0_is_void_and_the_others_are_reduced_by_1(root):
    dataset = ADE20K(root, "train")
    stored = cv2.imread(str(dataset.samples[0].mask), cv2.IMREAD_UNCHANGED).astype(int)
    assert {0, 1, 150} <= set(np.unique(stored))
    assert np.array_equal(dataset[0]["mask"], np.where(stored == 0, 255, stored - 1))


def test_grey_images_are_read_as_rgb(root):
    dataset = ADE20K(root, "train")
    assert cv2.imread(str(dataset.samples[0].image), cv2.IMREAD_UNCHANGED).ndim == 2
    image = dataset[0]["image"]
    assert image.shape == (3, 24, 32) and image[0].equal(image[1]) and image[0].equal(image[2])


def roots(tmp_path):
    """Return every kind of `root`."""
    folder = fake.ade20k(tmp_path / "folder")
    zipped = fake.ade20k(tmp_path / "zipped", zipped=True)
    return {
        "above": folder,
        "folder": folder / "ADEChallengeData2016",
        "above the zip": zipped,
        "zip": zipped / "ADEChallengeData2016.zip",
    }


@pytest.mark.parametrize("place", ["folder", "above the zip", "zip"])
def test_every_kind_of_root_gives_the_same_samples(tmp_path, place):
    folders = roots(tmp_path)
    ours, theirs = ADE20K(folders["above"], "train+val"), ADE20K(folders[place], "train+val")
    assert len(ours) == len(theirs) == 9
    for i in range(9):
        assert ours.image_name(i) == theirs.image_name(i)
        assert ours[i]["image"].equal(theirs[i]["image"])
        assert ours[i]["mask"].equal(theirs[i]["mask"])


def test_module_trains_on_train_and_evaluates_only_val(root):
    transform = TrainTransform([16, 16])
    module = ADE20KDataModule(
        str(root), train_transform=transform, global_batch_size=2, eval_batch_size=3, num_workers=0
    )
    module.setup()
    assert module.num_classes == 150 and module.test_dataset is None
    assert [batch["image"].shape for batch in module.train_dataloader()] == [(2, 3, 16, 16)] * 3
    (sizes,) = module.val_dataloader()
    assert [batch["image"].shape for batch in sizes] == [(2, 3, 24, 32), (1, 3, 22, 28)]


# errors


def test_missing_root_names_every_searched_path_and_how_to_get_the_data(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        ADE20K(tmp_path / "nowhere", "val")
    text = str(error.value)
    assert "\n" not in text
    for part in (
        f"no ADE20K at {tmp_path / 'nowhere'} (looked for images/validation or "
        "ADEChallengeData2016/images/validation or "
        "ADEChallengeData2016.zip/ADEChallengeData2016/images/validation in it)",
        *("data.root", "GALD_DATA", "ade20k/", "gald data prepare ade20k"),
    ):
        assert part in text


def test_missing_annotations_are_named(root):
    shutil.rmtree(root / "ADEChallengeData2016" / "annotations")
    with pytest.raises(FileNotFoundError, match="looked for annotations/training or "):
        ADE20K(root)


def test_image_without_mask_and_mask_without_image_are_named(root):
    first, second = ADE20K(root, "val").samples[:2]
    first.mask.unlink()
    with pytest.raises(SampleError) as error:
        ADE20K(root, "val")
    assert f"image {first.image} has no mask {first.mask.name} in" in str(error.value)
    shutil.copy(second.mask, first.mask)
    first.image.unlink()
    with pytest.raises(SampleError) as error:
        ADE20K(root, "val")
    assert f"mask {first.mask} has no image {first.image.name} in" in str(error.value)


def test_truncated_zip_is_one_sentence(tmp_path):
    root = fake.ade20k(tmp_path / "ade20k", zipped=True)
    archive = root / "ADEChallengeData2016.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(SampleError, match=r"ADEChallengeData2016\.zip is not a complete zip"):
        ADE20K(root)


def test_unknown_label_names_mask_and_known_range(root):
    dataset = ADE20K(root, "train")
    fake.write_labels(dataset.samples[0].mask, np.full((24, 32), 151))
    with pytest.raises(
        SampleError, match=r"ADE_train_00000001\.png has label 151, known .*0\.\.150"
    ):
        dataset[0]
