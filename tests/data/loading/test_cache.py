"""Samples from a cache equal those of the dataset, bit by bit."""

import os
import pickle
import re
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gald.data.camvid import CamVid, CamVidDataModule
from gald.data.loading import cache as module
from gald.data.loading.cache import cached
from gald.data.reading.sample_error import SampleError
from gald.data.transforms import TrainTransform

MODES = ["ram", "decoded"]


@pytest.fixture
def cache_dir(tmp_path):
    return str(tmp_path / "cache")


def test_mode_none_returns_the_dataset(camvid, cache_dir):
    dataset = CamVid(camvid, "train")
    assert cached(dataset, "none", cache_dir) is dataset
    assert not Path(cache_dir).exists()


def test_an_unknown_mode_is_refused(camvid, cache_dir):
    with pytest.raises(ValueError, match=r"^data\.cache is 'disk'; choose none, ram or decoded$"):
        cached(CamVid(camvid, "train"), "disk", cache_dir)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_and_items_equal_those_of_the_source(camvid, cache_dir, mode):
    source = CamVid(camvid, "train+val")
    dataset = cached(source, mode, cache_dir)
    assert len(dataset) == len(source) == 10
    for index in np.random.default_rng(0).permutation(10):
        image, labels, lut = dataset.pixels(index)
        expected = source.pixels(index)
        assert np.array_equal(image, expected.image)
        assert np.array_equal(lut[labels], cv2.LUT(expected.labels, expected.lut))
        item, original = dataset[index], source[index]
        assert torch.equal(item["image"], original["image"])
        assert torch.equal(item["mask"], original["mask"])
        assert item["name"] == original["name"]


@pytest.mark.parametrize("mode", MODES)
def test_names_and_fingerprint_equal_those_of_the_source(camvid, cache_dir, mode):
    source = CamVid(camvid, "train")
    dataset = cached(source, mode, cache_dir)
    assert dataset.class_names == source.class_names and dataset.palette == source.palette
    assert dataset.fingerprint() == source.fingerprint()
    assert dataset.cache_name() == source.cache_name()
    assert dataset.image_name(3) == source.image_name(3)


@pytest.mark.parametrize("mode", MODES)
def test_an_index_beyond_the_end_is_an_index_error(camvid, cache_dir, mode):
    dataset = cached(CamVid(camvid, "val"), mode, cache_dir)
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize("mode", MODES)
def test_cached_pixels_are_read_only(camvid, cache_dir, mode):
    image, labels, _ = cached(CamVid(camvid, "val"), mode, cache_dir).pixels(0)
    for array in (image, labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("mode", MODES)
def test_workers_read_the_same_pixels(camvid, cache_dir, mode):
    source = CamVid(camvid, "train")
    dataset = cached(source, mode, cache_dir)
    dataset.pixels(0)  # maps the file, so that workers inherit the map
    items = list(DataLoader(dataset, batch_size=None, num_workers=2))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(items, source, strict=False))
    assert all(torch.equal(a["mask"], b["mask"]) for a, b in zip(items, source, strict=False))
    assert len(items) == len(source)


@pytest.mark.parametrize("mode", MODES)
def test_training_batches_are_the_same_as_without_a_cache(camvid, cache_dir, mode):
    def batches(cache):
        data = CamVidDataModule(
            str(camvid),
            train_transform=TrainTransform(crop_size=(20, 28), cat_max_ratio=0.5),
            global_batch_size=2,
            num_workers=0,
            cache=cache,
            cache_dir=cache_dir,
            class_uniform=0.5,
        )
        data.setup("fit")
        return list(data.train_dataloader())

    for kept, plain in zip(batches(mode), batches("none"), strict=True):
        assert torch.equal(kept["image"], plain["image"])
        assert torch.equal(kept["mask"], plain["mask"])
        assert kept["name"] == plain["name"]


def test_decoded_pickles_without_pixels(camvid, cache_dir):
    dataset = cached(CamVid(camvid, "train"), "decoded", cache_dir)
    item = dataset[1]
    packed = pickle.dumps(dataset)
    assert len(packed) < 7 * 24 * 32 * 4 / 2
    assert torch.equal(pickle.loads(packed)[1]["image"], item["image"])


def test_a_later_run_decodes_nothing(camvid, cache_dir, monkeypatch):
    expected = cached(CamVid(camvid, "train"), "decoded", cache_dir)[0]
    dataset = CamVid(camvid, "train")
    monkeypatch.setattr(dataset, "pixels", None)
    assert torch.equal(cached(dataset, "decoded", cache_dir)[0]["mask"], expected["mask"])
    folder = Path(cache_dir, "decoded", f"camvid-train-{dataset.fingerprint()[:16]}")
    assert folder.is_dir()


def test_changed_files_are_decoded_again(camvid, cache_dir):
    cached(CamVid(camvid, "train"), "decoded", cache_dir)
    mask = camvid / "trainannot" / "train_00.png"
    fake.write_labels(mask, np.full((24, 32), 3))
    os.utime(mask, ns=(0, 0))
    assert (cached(CamVid(camvid, "train"), "decoded", cache_dir)[0]["mask"] == 3).all()


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_label_raises_the_message_of_the_dataset(camvid, cache_dir, mode):
    mask = camvid / "trainannot" / "train_05.png"
    fake.write_labels(mask, np.full((24, 32), 77))
    with pytest.raises(SampleError, match=f"^mask {mask} has label 77, known are 0..11; "):
        cached(CamVid(camvid, "train"), mode, cache_dir)


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_image_raises_the_message_of_the_reader(camvid, cache_dir, mode):
    image = camvid / "train" / "train_05.png"
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(SampleError, match=f"^{image} is truncated"):
        cached(CamVid(camvid, "train"), mode, cache_dir)


def test_the_home_folder_is_expanded(camvid, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cached(CamVid(camvid, "val"), "decoded", "~/kept")
    assert (tmp_path / "kept" / "decoded").is_dir()


def test_too_little_memory_is_refused(camvid, cache_dir, monkeypatch):
    monkeypatch.setattr(module, "_available_memory", lambda: 20_000)
    with pytest.raises(ValueError) as caught:
        cached(CamVid(camvid, "train"), "ram", cache_dir)
    assert str(caught.value) == (
        "decoding 7 samples into memory, about 21.5 kB, does not fit (available 20.0 kB); "
        "set data.cache=decoded, which keeps them in a file, or data.cache=none"
    )


def test_unknown_available_memory_is_not_checked(camvid, cache_dir, monkeypatch, capsys):
    monkeypatch.setattr(module, "_available_memory", lambda: None)
    assert len(cached(CamVid(camvid, "train"), "ram", cache_dir)) == 7
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "decoding 7 samples into memory, about 21.5 kB"


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="not Linux")
def test_available_memory_is_at_most_the_total():
    total = int(re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    available = module._available_memory()
    assert available is not None and 0 < available <= total
