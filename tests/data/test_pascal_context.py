import json

import cv2
import fake
import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from scipy.io import savemat

from gald.data import pascal_context
from gald.data.pairs import note_rejects
from gald.data.pascal_context import PascalContext59, PascalContext60, PascalContextDataModule
from gald.data.reading.sample_error import SampleError

SOURCES = ("png", "png_voc_first", "json", "mat")


@pytest.fixture(autouse=True)
def clear_cache():
    pascal_context._read_json.cache_clear()


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and text, text
    return text


# class attributes


def test_names_colours_and_ids_agree_with_the_published_table(real_data):
    rows = json.loads((real_data / "labels" / "pascal_context.json").read_text())
    assert PascalContext60.class_names == tuple(row["name"] for row in rows)
    assert PascalContext60.palette == tuple(tuple(row["color"]) for row in rows)
    assert PascalContext59.class_names == PascalContext60.class_names[1:]
    assert PascalContext59.palette == PascalContext60.palette[1:]
    ids = {row["id"]: row["train_id"] for row in rows}
    assert pascal_context._FROM_459.tolist() == [ids.get(i, 0) for i in range(460)]
    order = {row["fcn59_index"]: row["train_id"] for row in rows}
    assert pascal_context._FROM_VOC_FIRST[:60].tolist() == [order[i] for i in range(60)]
    for row in rows:
        assert PascalContext60.label_map[row["train_id"]] == row["train_id"]
        assert PascalContext59.label_map[row["train_id"]] == row["train_id_59"]


def test_names_follow_the_459_of_the_original_release(real_data):
    names = json.loads((real_data / "labels" / "pascal_context_459_names.json").read_text())
    kept = np.flatnonzero(pascal_context._FROM_459)
    assert tuple(names[str(i)] for i in kept) == PascalContext59.class_names


def test_class_attributes():
    assert len(PascalContext59.class_names) == 59 and len(PascalContext60.class_names) == 60
    assert PascalContext60.class_names[0] == "background"
    names = PascalContext59.class_names
    assert (names[0], names[36], names[58]) == ("aeroplane", "person", "wood")
    assert list(names) == sorted(names)
    assert PascalContext59.label_map[0] == 255 and PascalContext59.label_map[59] == 58
    assert np.count_nonzero(pascal_context._FROM_459) == 59
    assert pascal_context._FROM_459[[2, 23, 284, 397, 1, 459]].tolist() == [1, 6, 37, 50, 0, 0]
    assert pascal_context._FROM_VOC_FIRST[[0, 1, 2, 11, 15]].tolist() == [0, 1, 6, 50, 37]
    assert sorted(pascal_context._FROM_VOC_FIRST) == list(range(256))
    assert PascalContext59.published_counts == {"train": (4998, 4996), "val": (5105, 5104)}
    assert PascalContext59.title == "Pascal Context, 59 classes"
    assert PascalContext60.title == "Pascal Context, 60 classes"


# reading


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_samples(tmp_path, source):
    root = fake.pascal_context(tmp_path / "data", source)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        dataset = PascalContext60(root, split)
        assert dataset.source == source.partition("_")[0] and len(dataset) == count
        for index, item in enumerate(dataset):
            _, places = fake.sample(rng, range(len(fake.PASCAL_CONTEXT)))
            expected = np.array(fake.PASCAL_CONTEXT)[:, 1][places]
            assert np.array_equal(item["mask"].numpy(), expected)
            assert item["name"] == f"2008_{index + 6 * (split == 'val'):06d}"
            assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 24, 32)


@pytest.mark.parametrize("source", SOURCES)
def test_with_59_classes_background_is_void_and_train_ids_start_at_0(tmp_path, source):
    root = fake.pascal_context(tmp_path / "data", source)
    sixty = PascalContext60(root, "train+val")
    for item, other in zip(PascalContext59(root, "train+val"), sixty, strict=True):
        assert torch.equal(item["mask"], other["mask"] - 1)  # 0 - 1 is 255
        assert set(item["mask"].unique().tolist()) >= {0, 58, 255}


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2010", "VOCdevkit", "."])
@pytest.mark.parametrize("labels_in", ["VOCdevkit/VOC2010", "VOCdevkit", "."])
def test_root_is_voc2010_or_a_folder_above(tmp_path, place, labels_in):
    root = fake.pascal_context(tmp_path / "data", "json")
    (root / "trainval_merged.json").rename(root / labels_in / "trainval_merged.json")
    if (root / labels_in).is_relative_to(root / place):
        assert len(PascalContext59(root / place)) == 6
    else:
        with pytest.raises(FileNotFoundError, match=r"trainval_merged\.json"):
            PascalContext59(root / place)


def test_auto_prefers_png_and_prints_the_other_sources(tmp_path, capsys):
    for source in ("mat", "json", "png"):
        root = fake.pascal_context(tmp_path / "data", source)
    assert PascalContext59(root).source == "png"
    output = capsys.readouterr().err
    assert "SegmentationClassContext; data.source=json or mat" in output and output.count("\n") == 1
    for source in ("png", "json", "mat"):
        assert PascalContext59(root, source=source).source == source
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "trainval_merged.json, once" in output
    root.joinpath("VOCdevkit/VOC2010/SegmentationClassContext").rename(root / "away")
    assert PascalContext59(root).source == "json"


def test_order_follows_from_the_folder_unless_it_is_set(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "png_voc_first")
    assert PascalContext59(root).order == "voc_first"
    as_stored = PascalContext60(root, order="alphabetical")[0]["mask"].numpy()
    path = root / "59_context_labels" / "2008_000000.png"
    assert np.array_equal(as_stored, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    # the same files, read in another order
    other = PascalContext60(root, order="alphabetical")
    assert PascalContext60(root).fingerprint() != other.fingerprint()
    folder = root / "VOCdevkit" / "VOC2010" / "SegmentationClassContext"
    expected = PascalContext60(root)[0]["mask"]
    (root / "59_context_labels").rename(folder)
    assert PascalContext59(root).order == "alphabetical"
    assert torch.equal(PascalContext60(root, order="voc_first")[0]["mask"], expected)


def test_the_lists_of_segmentation_context_are_preferred_to_those_of_voc(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "png")
    folder = root / "VOCdevkit" / "VOC2010" / "ImageSets"
    (folder / "Main").mkdir()
    (folder / "Main" / "train.txt").write_text("2008_000000\n2008_000001\n")
    assert len(PascalContext59(root)) == 6
    (folder / "SegmentationContext" / "train.txt").unlink()
    assert len(PascalContext59(root)) == 2


def test_samples_are_sorted_independently_of_the_list(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "png")
    listing = root / "VOCdevkit" / "VOC2010" / "ImageSets" / "SegmentationContext" / "train.txt"
    names = listing.read_text().split()
    listing.write_text("\n".join(reversed(names)) + "\n\n")
    assert [sample.name for sample in PascalContext59(root).samples] == names


# the json


def write_json(root, masks, phase="train"):
    """Write one image of 4x6 pixels with masks of (category, segmentation)."""
    fake.write_image(root / "VOC2010" / "JPEGImages" / "2008_000007.jpg", np.zeros((4, 6, 3)))
    image = {"image_id": 1, "file_name": "2008_000007.jpg", "height": 4, "width": 6, "phase": phase}
    annotations = [{"image_id": 1, "category_id": c, "segmentation": s} for c, s in masks]
    content = {"images": [image], "annos_segmentation": annotations}
    (root / "trainval_merged.json").write_text(json.dumps(content))
    return root


def test_masks_may_be_compressed_runs_numbers_or_polygons_and_later_ones_win(tmp_path):
    packed = coco.encode(np.asfortranarray(np.tri(4, 6, dtype=np.uint8)))
    packed["counts"] = packed["counts"].decode()
    # the first column and one pixel of the next
    numbers = {"size": [4, 6], "counts": [0, 5, 19]}
    polygons = [[3, 0, 6, 0, 6, 4, 3, 4], [0, 3, 1, 3, 1, 4, 0, 4]]  # the right half, a corner
    masks = [(2, packed), (459, polygons), (9, numbers)]
    root = write_json(tmp_path, masks)
    expected = np.tri(4, 6, dtype=np.uint8)
    expected[:, 3:] = 0
    expected[:, 0] = expected[0, 1] = 2
    assert np.array_equal(PascalContext60(root)[0]["mask"].numpy(), expected)


def test_an_image_without_masks_is_background(tmp_path):
    root = write_json(tmp_path, [], "val")
    assert (PascalContext60(root, "val")[0]["mask"] == 0).all()


def test_the_json_is_read_once_for_all_datasets_until_it_changes(tmp_path, capsys):
    root = fake.pascal_context(tmp_path / "data", "json")
    for split in ("train", "val", "train+val"):
        PascalContext59(root, split), PascalContext60(root, split)
    assert capsys.readouterr().err.count("reading") == 1
    path = root / "trainval_merged.json"
    path.write_text(path.read_text().replace('"val"', '"train"'))
    assert len(PascalContext59(root)) == 9


def test_a_damaged_json_is_one_sentence(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "json")
    path = root / "trainval_merged.json"
    whole = path.read_text()
    for text in (whole[:-9], "", "[]", "{}", whole.replace("phase", "split"), "\x80"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(SampleError) as error:
            PascalContext59(root)
        text = sentence(error)
        assert f"{path} is not a complete trainval_merged.json" in text and "prepare" in text


@pytest.mark.parametrize(
    "mask",
    [
        (2, {"size": [5, 6], "counts": [0, 30]}),
        (2, {"size": [4, 6]}),
        (2, {"size": [4, 6], "counts": 7}),
        (460, {"size": [4, 6], "counts": [0, 24]}),
        (2, [[1, 2]]),
        (2, None),
    ],
)
def test_a_damaged_mask_names_the_image_and_the_file(tmp_path, mask):
    root = write_json(tmp_path, [mask])
    with pytest.raises(SampleError) as error:
        PascalContext59(root)[0]
    text = sentence(error)
    assert "2008_000007" in text and str(root / "trainval_merged.json") in text


# the module


def test_module_scores_59_or_60_classes_and_has_no_test_split(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "png")
    for classes in (59, 60):
        module = PascalContextDataModule(str(root), classes=classes, num_workers=0)
        assert module.num_classes == classes and not module.has_test
        module.setup()
        assert module.test_dataset is None
        assert len(module.train_dataset) == 6 and len(module.val_dataset) == 3
        assert module.train_dataset[0]["mask"].max() == (255 if classes == 59 else 59)
    module = PascalContextDataModule(str(root), train_split="train+val")
    assert len(module.make_dataset("train")) == 9
    with pytest.raises(ValueError, match=r"data\.classes is 58; .* 59, or 60 with the background"):
        PascalContextDataModule(str(root), classes=58)


# errors


@pytest.mark.parametrize("dataset", [PascalContext59, PascalContext60])
def test_missing_root_names_the_searched_path_and_how_to_get_the_data(tmp_path, dataset):
    with pytest.raises(FileNotFoundError) as error:
        dataset(tmp_path / "nowhere")
    text = sentence(error)
    for part in ("nowhere", "VOCdevkit/VOC2010/JPEGImages", "data.root", dataset.title):
        assert part in text
    assert "gald data prepare pascal_context" in text


@pytest.mark.parametrize("source", ["auto", "json", "png", "mat"])
def test_missing_labels_name_the_files_of_the_source(tmp_path, source):
    (tmp_path / "VOC2010" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        PascalContext59(tmp_path, source=source)
    text = sentence(error)
    names = {
        "png": ("SegmentationClassContext", "59_context_labels"),
        "json": ("trainval_merged.json",),
        "mat": ("trainval in it",),
    }
    for kind, labels in names.items():
        assert all((label in text) == (source in ("auto", kind)) for label in labels)


@pytest.mark.parametrize("option", ["source", "order"])
def test_unknown_options_name_the_choices(tmp_path, option):
    with pytest.raises(ValueError, match=rf"data\.{option} \(dev\) is unknown; choose one of auto"):
        PascalContext59(tmp_path, **{option: "dev"})


def test_pickles_are_refused_unless_there_is_another_source(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "json")
    (root / "VOCdevkit" / "VOC2010" / "train.pth").write_bytes(b"")
    assert len(PascalContext59(root)) == 6
    (root / "trainval_merged.json").unlink()
    with pytest.raises(ValueError) as error:
        PascalContext59(root)
    text = sentence(error)
    assert "train.pth" in text and "pickle" in text and "prepare pascal_context" in text


@pytest.mark.parametrize("source", ["png", "json", "mat"])
def test_a_missing_image_or_mask_is_named(tmp_path, source):
    root = fake.pascal_context(tmp_path / "data", source)
    image = root / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000003.jpg"
    data = image.read_bytes()
    image.unlink()
    with pytest.raises(
        SampleError, match=r"names 2008_000003, .* no 2008_000003\.jpg in .*restore"
    ):
        PascalContext59(root)
    image.write_bytes(data)
    if source == "json":
        return
    (mask,) = root.rglob(f"2008_000004.{source}")
    mask.unlink()
    with pytest.raises(SampleError, match=rf"no 2008_000004\.{source} in .*restore the mask"):
        PascalContext59(root)
    with note_rejects() as rejects:
        assert len(PascalContext59(root)) == 5
    assert len(rejects) == 1


def test_a_missing_list_is_named(tmp_path):
    root = fake.pascal_context(tmp_path / "data", "mat")
    (root / "VOCdevkit" / "VOC2010" / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"SegmentationContext/val\.txt or .*Main/val\.txt"):
        PascalContext59(root, "val")


@pytest.mark.parametrize("source", ["png", "png_voc_first"])
def test_unknown_png_label_names_file_and_value(tmp_path, source):
    root = fake.pascal_context(tmp_path / "data", source)
    (path,) = root.rglob("2008_000000.png")
    fake.write_labels(path, np.full((24, 32), 77))
    with pytest.raises(SampleError) as error:
        PascalContext59(root)[0]
    text = sentence(error)
    assert str(path) in text and "label 77" in text and "0..59" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"LabelMap": np.full((24, 32), 500, np.uint16)}, r"values 500\.\.500, not"),
        ({"LabelMap": np.zeros((24, 32, 3), np.uint16)}, r"shape \(24, 32, 3\) with values"),
        ({"labels": np.zeros((24, 32))}, "no readable key LabelMap"),
        (None, "no readable key LabelMap"),
    ],
)
def test_damaged_mat_names_the_file(tmp_path, content, message):
    root = fake.pascal_context(tmp_path / "data", "mat")
    path = root / "trainval" / "2008_000000.mat"
    if content is None:
        path.write_bytes(path.read_bytes()[:-40])
    else:
        savemat(path, content)
    with pytest.raises(SampleError, match=message) as error:
        PascalContext59(root)[0]
    assert str(path) in sentence(error)


@pytest.mark.parametrize("source", ["png", "json", "mat"])
def test_truncated_image_is_detected(tmp_path, source):
    root = fake.pascal_context(tmp_path / "data", source)
    path = root / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000000.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SampleError, match=r"2008_000000\.jpg is truncated"):
        PascalContext59(root)[0]
