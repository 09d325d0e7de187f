import hashlib
import shutil

import cv2
import fake
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from gald.data.coco_stuff import (
    CocoStuff10k,
    CocoStuff10kDataModule,
    CocoStuff164k,
    CocoStuff164kDataModule,
)
from gald.data.labels import stored_labels
from gald.data.reading.sample_error import SampleError
from gald.data.transforms import TrainTransform

TWINS = {CocoStuff10k: fake.coco_stuff_10k, CocoStuff164k: fake.coco_stuff_164k}
V1_0 = range(1, 173)
both = pytest.mark.parametrize("dataset_class", TWINS)


@pytest.fixture
def small(tmp_path):
    return fake.coco_stuff_10k(tmp_path / "coco_stuff")


@pytest.fixture
def large(tmp_path):
    return fake.coco_stuff_164k(tmp_path / "coco_stuff_164k")


# class attributes


def test_labels_names_and_colours_agree_with_the_published_table(published):
    rows = published("coco_stuff")
    assert CocoStuff10k.label_map == {row["id"]: row["train_id"] for row in rows}
    assert CocoStuff164k.label_map == {row["id_png164k"]: row["train_id"] for row in rows}
    kept = [row for row in rows if row["train_id"] != 255]
    for dataset_class in TWINS:
        assert dataset_class.class_names == tuple(row["name"].strip() for row in kept)
        assert dataset_class.palette == tuple(tuple(row["color"]) for row in kept)


@pytest.mark.parametrize(
    ("dataset_class", "digest"),
    [(CocoStuff10k, "a35bf7d79ca7649a"), (CocoStuff164k, "9687dc4d0e7f88cd")],
)
def test_labels_names_and_colours_are_unchanged_since_the_comparison(dataset_class, digest):
    labels = dataset_class.label_map
    facts = dataset_class.class_names, dataset_class.palette, sorted(labels.items())
    assert hashlib.sha256(repr(facts).encode()).hexdigest()[:16] == digest
    assert len(dataset_class.class_names) == len(dataset_class.palette) == 171


def test_labels_of_164k_are_one_below_those_of_10k():
    small, large = CocoStuff10k.label_map, CocoStuff164k.label_map
    assert {(label - 1) % 256: train_id for label, train_id in small.items()} == large
    assert small[0] == large[255] == 255
    for label, name in ((1, "person"), (90, "toothbrush"), (92, "banner"), (182, "wood")):
        assert CocoStuff10k.class_names[small[label]] == name
    assert all(small[label] == 255 for label in fake.NEVER_ANNOTATED)


@both
def test_labels_survive_conversion_to_train_ids_and_back(dataset_class):
    kept = {label: i for label, i in dataset_class.label_map.items() if i != 255}
    table = stored_labels(dataset_class.label_map)
    assert len(kept) == 171 and all(table[i] == label for label, i in kept.items())


def test_published_counts_agree_with_the_official_lists(real_data):
    for part, name in (("train", "train"), ("val", "test")):
        listing = real_data / "splits" / f"cocostuff10k_{name}.txt"
        if not listing.is_file():
            pytest.skip(f"no list {listing}")
        assert (len(listing.read_text().split()),) == CocoStuff10k.published_counts[part]
    assert CocoStuff164k.published_counts == {"train": (118287,), "val": (5000,)}


# files


@both
def test_stored_labels_are_mapped_to_train_ids(dataset_class, tmp_path):
    dataset = dataset_class(TWINS[dataset_class](tmp_path / "root"), "train")
    sample, mask = dataset.samples[0], dataset[0]["mask"].numpy()
    if sample.mask.suffix == ".mat":
        labels = loadmat(sample.mask)["S"]
    else:
        labels = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
        labels = labels + np.uint8(1)  # 255, unlabeled, becomes 0
    assert set(np.unique(labels)) == set(fake.COCO_STUFF)
    for label, train_id in ((0, 255), (1, 0), (11, 10), (13, 11), (92, 80), (182, 170)):
        assert set(mask[labels == label]) == {train_id}


@both
def test_splits_have_their_numbers_of_samples_and_their_sizes(dataset_class, tmp_path):
    root = TWINS[dataset_class](tmp_path / "root")
    assert len(dataset_class(root, "train")) == 6 and len(dataset_class(root, "train+val")) == 9
    items = list(map(dataset_class(root, "val").__getitem__, range(3)))
    assert {tuple(item["mask"].shape) for item in items} == {(24, 32), (22, 28)}


@both
def test_zips_and_folders_give_the_same_samples(dataset_class, tmp_path):
    write = TWINS[dataset_class]
    ours = dataset_class(write(tmp_path / "folders"), "val")
    theirs = dataset_class(write(tmp_path / "zips", zipped=True), "val")
    assert any(".zip" in str(sample.mask) for sample in theirs.samples)
    for i in range(3):
        assert ours.image_name(i) == theirs.image_name(i)
        assert ours[i]["image"].equal(theirs[i]["image"])
        assert ours[i]["mask"].equal(theirs[i]["mask"])


@pytest.mark.parametrize("inside", ["", "cocostuff-10k-v1.1"])
@pytest.mark.parametrize("is_root", [False, True])
def test_zip_of_10k_may_contain_a_folder_of_its_name_and_be_the_root(small, inside, is_root):
    archive = small.parent / "cocostuff-10k-v1.1.zip"
    fake.pack(small, archive, inside)
    assert len(CocoStuff10k(archive if is_root else archive.parent, "train")) == 6


def test_val_of_10k_is_the_test_list_in_its_order(small):
    listing = small / "imageLists" / "test.txt"
    names = listing.read_text().split()[::-1]
    listing.write_text("\n".join(names) + "\n\n")
    dataset = CocoStuff10k(small, "val")
    assert [dataset.image_name(i) for i in range(3)] == names


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "annotations"),
        (".", "stuffthingmaps"),
        ("images", "stuffthingmaps_trainval2017"),
    ],
)
def test_folders_of_164k_may_lie_as_they_were_extracted(large, images, masks):
    (large / "annotations").rename(large / masks)
    if images == ".":
        for folder in (large / "images").iterdir():
            folder.rename(large / folder.name)
    samples = CocoStuff164k(large, "train").samples
    assert len(samples) == 6
    # the masks, not the _labelTrainIds.png beside them
    assert all(
        sample.mask == large / masks / "train2017" / f"{sample.name}.png" for sample in samples
    )


@pytest.mark.parametrize(
    ("module_class", "write"),
    [
        (CocoStuff10kDataModule, fake.coco_stuff_10k),
        (CocoStuff164kDataModule, fake.coco_stuff_164k),
    ],
)
def test_module_trains_on_train_and_evaluates_only_val(module_class, write, tmp_path):
    module = module_class(
        str(write(tmp_path / "root")),
        train_transform=TrainTransform([16, 16]),
        global_batch_size=2,
        num_workers=0,
    )
    module.setup()
    assert module.num_classes == 171 and module.test_dataset is None
    assert (len(module.train_dataset), len(module.val_dataset)) == (6, 3)
    assert [batch["image"].shape for batch in module.train_dataloader()] == [(2, 3, 16, 16)] * 3


# version 1.0 of 10k


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and text
    return text


def write_s(path, labels):
    savemat(path, {"S": np.asarray(labels, np.uint16)})


@pytest.mark.parametrize("split", ["train", "val"])
def test_v1_0_is_recognised_by_its_labels(tmp_path, split):
    root = fake.coco_stuff_10k(tmp_path / "coco_stuff", labels=V1_0)
    with pytest.raises(SampleError) as error:
        CocoStuff10k(root, split)
    text = sentence(error)
    assert str(root / "annotations") in text and ".mat has label " in text
    assert (
        "1 unlabeled, 2..81 things, 82..172 stuff" in text and "get cocostuff-10k-v1.1.zip" in text
    )


@pytest.mark.parametrize(("label", "refused"), [(12, True), (91, True), (0, False), (173, False)])
def test_the_first_mask_with_a_label_of_one_version_decides(small, label, refused):
    for number, sample in enumerate(CocoStuff10k(small, "train").samples):
        write_s(sample.mask, [[1, 2, 81, 172, label if number == 3 else 82]])
    if refused:
        with pytest.raises(
            SampleError, match=rf"0003\.mat has label {label}, so it is version 1\.0"
        ):
            CocoStuff10k(small, "train")
    else:
        assert len(CocoStuff10k(small, "train")) == 6


def test_v1_1_is_assumed_if_no_label_decides(small):
    for sample in CocoStuff10k(small, "train").samples:
        write_s(sample.mask, [[1, 2, 81, 82, 172]])
    assert len(CocoStuff10k(small, "train")) == 6


@pytest.mark.parametrize("name", ["cocostuff-10k-v1.0", "cocostuff-10k-v1.0.zip"])
def test_v1_0_is_recognised_by_its_name(small, name):
    old = small.parent / name
    if old.suffix == ".zip":
        fake.pack(small, old)
    else:
        small.rename(old)
    with pytest.raises(SampleError) as error:
        CocoStuff10k(old)
    assert sentence(error).startswith(f"{old} is version 1.0 of COCO-Stuff 10k")
    with pytest.raises(FileNotFoundError) as error:
        CocoStuff10k(old.parent)
    assert sentence(error).startswith(f"{old} is version 1.0 of COCO-Stuff 10k")


def test_v1_0_beside_v1_1_is_ignored(small):
    (small / "cocostuff-10k-v1.0.zip").write_bytes(b"")
    assert len(CocoStuff10k(small)) == 6


# errors


def test_missing_root_of_10k_names_every_searched_path_and_how_to_get_the_data(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        CocoStuff10k(tmp_path / "nowhere")
    text = sentence(error)
    top = "cocostuff-10k-v1.1"
    for part in (
        f"no COCO-Stuff 10k at {tmp_path / 'nowhere'} (looked for images or {top}/images or "
        f"{top}.zip/images or {top}.zip/{top}/images in it)",
        *("data.root", "GALD_DATA", "coco_stuff/", "gald data prepare coco_stuff"),
    ):
        assert part in text


def test_missing_root_of_164k_names_every_searched_path_and_how_to_get_the_data(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        CocoStuff164k(tmp_path / "nowhere", "val")
    text = sentence(error)
    for part in (
        f"no COCO-Stuff 164k at {tmp_path / 'nowhere'} (looked for images/val2017 or val2017 or "
        "val2017.zip/val2017 in it)",
        *("data.root", "GALD_DATA", "coco_stuff_164k/", "gald data prepare coco_stuff_164k"),
    ):
        assert part in text


def test_missing_maps_of_164k_name_their_zip(large):
    shutil.rmtree(large / "annotations")
    with pytest.raises(
        FileNotFoundError, match=r"stuffthingmaps_trainval2017\.zip/train2017 in it"
    ):
        CocoStuff164k(large)


@both
def test_image_without_mask_names_the_image(dataset_class, tmp_path):
    root = TWINS[dataset_class](tmp_path / "root")
    sample = dataset_class(root, "train").samples[2]
    sample.mask.unlink()
    with pytest.raises(SampleError) as error:
        dataset_class(root, "train")
    assert f"image {sample.image} has no mask {sample.mask.name} in" in sentence(error)


def test_mask_of_164k_without_image_names_the_mask(large):
    sample = CocoStuff164k(large, "train").samples[2]
    sample.image.unlink()
    with pytest.raises(SampleError) as error:
        CocoStuff164k(large, "train")
    assert f"mask {sample.mask} has no image {sample.image.name} in" in sentence(error)


def test_missing_listed_image_of_10k_names_the_list(small):
    sample = CocoStuff10k(small, "train").samples[2]
    sample.image.unlink()
    with pytest.raises(SampleError) as error:
        CocoStuff10k(small, "train")
    text = sentence(error)
    assert f"{small / 'imageLists' / 'train.txt'} names {sample.name}, but" in text
    assert f"has no {sample.image.name}; restore the image" in text


def test_missing_list_is_named(small):
    (small / "imageLists" / "test.txt").unlink()
    with pytest.raises(SampleError, match=r"cannot read .*test\.txt"):
        CocoStuff10k(small, "val")


def test_broken_mask_is_one_sentence_when_it_is_read(small):
    dataset = CocoStuff10k(small, "train")
    path = dataset.samples[0].mask
    path.write_bytes(b"a web page that says 404")
    for listed in (dataset, CocoStuff10k(small, "train")):
        with pytest.raises(SampleError) as error:
            listed[0]
        assert sentence(error).startswith(f"mask {path} has no readable key S")


def test_unknown_label_of_10k_names_mask_and_known_range(small):
    dataset = CocoStuff10k(small, "train")
    write_s(dataset.samples[0].mask, np.full((24, 32), 183))
    with pytest.raises(SampleError, match=r"0\.mat has a key S .* 183\.\.183, not .* 0\.\.182;"):
        dataset[0]


def test_unknown_label_of_164k_names_mask_and_value(large):
    dataset = CocoStuff164k(large, "train")
    fake.write_labels(dataset.samples[0].mask, np.full((24, 32), 182))
    with pytest.raises(SampleError, match=r"0\.png has label 182, known are "):
        dataset[0]
