import json
import re

import cv2
import fake
import numpy as np
import pytest
import torch
from PIL import Image

from gald.data.camvid import CamVid, CamVidDataModule
from gald.data.reading.sample_error import SampleError


def test_item_is_uint8_rgb_image_mask_and_name(camvid):
    item = CamVid(camvid, "train")[0]
    assert item["image"].dtype == item["mask"].dtype == torch.uint8
    assert item["image"].shape == (3, 24, 32) and item["mask"].shape == (24, 32)
    assert item["name"] == "train_00"
    bgr = cv2.imread(str(camvid / "train" / "train_00.png"))
    assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), bgr[:, :, ::-1])


def test_void_becomes_255_and_other_labels_stay(camvid):
    stored = cv2.imread(str(camvid / "trainannot" / "train_00.png"), cv2.IMREAD_UNCHANGED)
    expected = np.where(stored == 11, 255, stored)
    assert np.array_equal(CamVid(camvid, "train")[0]["mask"].numpy(), expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    "lists", ["/SegNet/CamVid/{folder}/{name}", "{folder}/{name}", "{name}", None]
)
def test_lists_with_any_path_and_no_list_find_the_same_files(tmp_path, suffix, lists):
    root = fake.camvid(tmp_path / "data", suffix, lists)
    samples = CamVid(root, "train").samples
    assert [(sample.image.name, sample.mask.name) for sample in samples] == [
        (f"train_{i:02d}{suffix}", f"train_{i:02d}.png") for i in range(7)
    ]
    assert all(m.parent.name == "trainannot" for _, _, m in samples)


def test_a_list_that_names_png_finds_images_stored_as_jpg(tmp_path):
    root = fake.camvid(tmp_path / "data", ".jpg", "{folder}/{name}")
    listing = root / "train.txt"
    listing.write_text(listing.read_text().replace(".jpg", ".png"))
    assert len(CamVid(root, "train")) == 7


def test_splits_can_be_joined(camvid):
    assert len(CamVid(camvid, "train+val")) == 10
    module = CamVidDataModule(str(camvid), train_split="train+val", global_batch_size=2)
    module.setup()
    counts = [len(d) for d in (module.train_dataset, module.val_dataset, module.test_dataset)]
    assert counts == [10, 3, 2]


def test_label_map_and_facts_agree_with_the_published_table(real_data):
    table = json.loads((real_data / "labels" / "camvid.json").read_text())
    assert CamVid.label_map == {row["id"]: row["train_id"] for row in table}
    named = [row for row in table if row["train_id"] != 255]
    assert CamVid.class_names == tuple(row["name"] for row in named)
    assert CamVid.palette == tuple(tuple(row["color"]) for row in named)


def test_real_camvid_has_367_101_233_images(real_data):
    root = real_data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    counts = [len(CamVid(root, split)) for split in ("train", "val", "test")]
    assert counts == [367, 101, 233]
    item = CamVid(root, "test")[232]
    assert item["image"].shape == (3, 360, 480)
    assert set(item["mask"].unique().tolist()) <= {*range(11), 255}


# errors: one sentence, the file, the remedy


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and text, text
    return text


def test_missing_root_names_root_and_how_to_set_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        CamVid(tmp_path / "nowhere", "train")
    text = sentence(error)
    for part in ("nowhere", "train/", "trainannot/", "GALD_DATA", "data.root"):
        assert part in text


def test_unknown_split_names_the_choices(camvid):
    with pytest.raises(ValueError, match=r"split \(dev\).*train, val, test, or join"):
        CamVid(camvid, "dev")


def test_unknown_label_names_file_value_and_remedy(camvid):
    path = camvid / "trainannot" / "train_00.png"
    cv2.imwrite(str(path), np.full((24, 32), 77, np.uint8))
    with pytest.raises(ValueError) as error:
        CamVid(camvid, "train")[0]
    text = sentence(error)
    assert str(path) in text and "label 77" in text and "0..11" in text and "label_map" in text


@pytest.mark.parametrize("lists", [True, False])
def test_image_without_mask_names_the_image(camvid, lists):
    (camvid / "trainannot" / "train_03.png").unlink()
    if not lists:
        (camvid / "train.txt").unlink()
    with pytest.raises(ValueError) as error:
        CamVid(camvid, "train")
    text = sentence(error)
    assert str(camvid / "train" / "train_03.png") in text and "no mask" in text
    assert "restore the mask" in text


def test_mask_without_image_names_the_mask(camvid):
    (camvid / "train.txt").unlink()
    (camvid / "train" / "train_03.png").unlink()
    with pytest.raises(ValueError) as error:
        CamVid(camvid, "train")
    assert str(camvid / "trainannot" / "train_03.png") in sentence(error)


def test_missing_listed_image_names_the_line(camvid):
    (camvid / "train" / "train_03.png").unlink()
    with pytest.raises(ValueError, match=r"line 4 of .*train\.txt names train/train_03\.png"):
        CamVid(camvid, "train")


def test_list_with_one_column_names_the_line(camvid):
    (camvid / "train.txt").write_text("train/train_00.png\n")
    with pytest.raises(ValueError, match=r"line 1 of .* has 1 columns; write IMAGE ANNOT"):
        CamVid(camvid, "train")


def test_empty_split_names_the_folder(camvid):
    (camvid / "train.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no images"):
        CamVid(camvid, "train")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_image_truncated_anywhere_is_detected(tmp_path, suffix, kept):
    root = fake.camvid(tmp_path / "data", suffix)
    path = root / "train" / f"train_02{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError) as error:
        CamVid(root, "train")[2]
    text = sentence(error)
    assert str(path) in text
    assert re.search(r"truncated .*copy or download|cannot be decoded; replace", text)


def test_truncated_jpeg_with_a_complete_thumbnail_is_detected(tmp_path):
    root = fake.camvid(tmp_path / "data", ".jpg")
    path = root / "train" / "train_02.jpg"
    data = path.read_bytes()
    thumbnail = (root / "train" / "train_03.jpg").read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    path.write_bytes(whole)
    assert CamVid(root, "train")[2]["image"].shape == (3, 24, 32)
    path.write_bytes(whole[:-60])
    with pytest.raises(ValueError, match="truncated"):
        CamVid(root, "train")[2]


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_a_video_behind_it_is_complete(tmp_path, progressive):
    root = fake.camvid(tmp_path / "data", ".jpg")
    path = root / "train" / "train_02.jpg"
    Image.open(path).save(path, quality=95, progressive=progressive)
    expected = CamVid(root, "train")[2]["image"]
    photo = path.read_bytes()
    video = b"\0\0\0\x18ftypmp42" + 40_000 * b"\xff\xd9\xff\xda"  # longer than a read end
    path.write_bytes(photo + video)
    dataset = CamVid(root, "train")
    dataset.check_header(2)
    assert torch.equal(dataset[2]["image"], expected)
    path.write_bytes(photo[:-60] + video[:12])
    with pytest.raises(ValueError, match="truncated"):
        dataset[2]


def test_truncated_mask_is_detected(camvid):
    path = camvid / "trainannot" / "train_02.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"train_02\.png is truncated"):
        CamVid(camvid, "train")[2]


def test_file_that_is_not_an_image_is_detected(camvid):
    (camvid / "train" / "train_02.png").write_bytes(b"a web page that says 404")
    with pytest.raises(ValueError, match="cannot be decoded; replace it"):
        CamVid(camvid, "train")[2]


def test_file_removed_after_listing_is_one_sentence(camvid):
    dataset = CamVid(camvid, "train")
    dataset.samples[2].image.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*restore the file"):
        dataset[2]


def test_size_mismatch_names_both_sizes(camvid):
    cv2.imwrite(str(camvid / "trainannot" / "train_02.png"), np.zeros((20, 30), np.uint8))
    with pytest.raises(ValueError) as error:
        CamVid(camvid, "train")[2]
    text = sentence(error)
    assert "32x24" in text and "30x20" in text and "never resized" in text


def test_a_mask_of_colours_is_refused(camvid):
    colours = np.full((24, 32, 3), (1, 2, 3), np.uint8)
    cv2.imwrite(str(camvid / "trainannot" / "train_02.png"), colours)
    with pytest.raises(ValueError, match=r"is an RGB png with colours; save it as 8-bit grey png"):
        CamVid(camvid, "train")[2]


def test_the_indices_of_a_palette_mask_are_its_labels(camvid):
    path = camvid / "trainannot" / "train_02.png"
    expected = CamVid(camvid, "train")[2]["mask"]
    mask = Image.fromarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    mask = mask.copy()
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    assert mask.mode == "P"
    mask.save(path)
    assert torch.equal(CamVid(camvid, "train")[2]["mask"], expected)


def test_16_bit_masks_with_large_labels_are_refused(camvid):
    path = camvid / "trainannot" / "train_02.png"
    cv2.imwrite(str(path), np.full((24, 32), 256, np.uint16))
    with pytest.raises(ValueError, match="is a 16-bit png"):
        CamVid(camvid, "train")[2]


def test_jpg_mask_is_refused(camvid):
    path = camvid / "trainannot" / "train_02.png"
    _, data = cv2.imencode(".jpg", np.zeros((24, 32), np.uint8))
    path.write_bytes(data.tobytes())
    with pytest.raises(ValueError, match="is not a png"):
        CamVid(camvid, "train")[2]


def test_error_in_a_worker_is_one_sentence(camvid):
    path = camvid / "trainannot" / "train_02.png"
    path.write_bytes(path.read_bytes()[:-30])
    module = CamVidDataModule(str(camvid), global_batch_size=1, num_workers=1)
    module.setup("fit")
    loader = module.train_dataloader()
    with pytest.raises(SampleError) as error:
        list(loader)
    loader._iterator._shutdown_workers()  # Lightning does this; the garbage collector takes 5 s
    assert sentence(error).startswith(f"{path} is truncated")


def test_another_label_map_has_another_fingerprint(camvid, monkeypatch):
    before = CamVid(camvid, "val").fingerprint()
    assert CamVid(camvid, "val").fingerprint() == before
    monkeypatch.setattr(CamVid, "label_map", CamVid.label_map | {0: 1, 1: 0})
    assert CamVid(camvid, "val").fingerprint() != before
