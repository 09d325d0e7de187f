import os
import re
from pathlib import Path

import fake
import numpy as np
import pytest

from gald.data.camvid import CamVid
from gald.data.loading.cache import cached
from gald.data.loading.class_counts import class_counts, class_weights, pixel_counts
from gald.data.reading.sample_error import SampleError


@pytest.fixture
def cache_dir(tmp_path):
    return str(tmp_path / "cache")


def saved_files(cache_dir):
    return sorted(path.name for path in Path(cache_dir, "counts").iterdir())


def test_counts_exclude_void(camvid, cache_dir):
    mask = np.full((24, 32), 11)
    mask[:2, :3], mask[5, 5] = 4, 10
    fake.write_labels(camvid / "trainannot" / "train_02.png", mask)
    counts = class_counts(CamVid(camvid, "train"), cache_dir)
    assert counts.shape == (7, 11) and counts.dtype == np.int64
    assert counts[2].tolist() == [0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 1]


def test_counts_agree_with_the_masks(camvid, cache_dir):
    dataset = CamVid(camvid, "train+val")
    expected = [[(item["mask"] == c).sum().item() for c in range(11)] for item in items_of(dataset)]
    assert class_counts(dataset, cache_dir).tolist() == expected


def test_every_pixel_is_counted_once_if_void_is_included(camvid, cache_dir):
    counts = pixel_counts(CamVid(camvid, "train"), cache_dir)
    assert counts.shape == (7, 12) and counts[:, 11].min() > 0
    assert counts.sum(axis=1).tolist() == [24 * 32] * 7


def items_of(dataset):
    return (dataset[i] for i in range(len(dataset)))


def test_a_later_call_reads_no_mask(camvid, cache_dir, monkeypatch):
    expected = class_counts(CamVid(camvid, "train"), cache_dir)
    dataset = CamVid(camvid, "train")
    monkeypatch.setattr(dataset, "labels", None)
    assert np.array_equal(class_counts(dataset, cache_dir), expected)
    assert saved_files(cache_dir) == [f"camvid-train-{dataset.fingerprint()[:16]}.npy"]


def test_a_cached_dataset_shares_the_counts_of_its_source(camvid, cache_dir, monkeypatch):
    dataset = CamVid(camvid, "train")
    from_cache = class_counts(cached(dataset, "decoded", cache_dir), cache_dir)
    monkeypatch.setattr(dataset, "labels", None)
    assert np.array_equal(class_counts(dataset, cache_dir), from_cache)


def test_changed_masks_are_counted_again(camvid, cache_dir):
    class_counts(CamVid(camvid, "train"), cache_dir)
    mask = camvid / "trainannot" / "train_00.png"
    fake.write_labels(mask, np.full((24, 32), 3))
    os.utime(mask, ns=(0, 0))
    assert class_counts(CamVid(camvid, "train"), cache_dir)[0, 3] == 24 * 32


def save(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\0\0\0\0", b"\0\0\1\0")),
        save(np.zeros((6, 11), np.int64)),
        save(np.zeros((7, 11), np.float64)),
        lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    ],
)
def test_a_damaged_file_is_counted_again_and_replaced(camvid, cache_dir, damage):
    dataset = CamVid(camvid, "train")
    expected = class_counts(dataset, cache_dir)
    path = Path(cache_dir, "counts", saved_files(cache_dir)[0])
    whole = path.read_bytes()
    damage(path)
    assert np.array_equal(class_counts(dataset, cache_dir), expected)
    assert path.read_bytes() == whole


def test_an_unknown_label_raises_the_message_of_the_dataset(camvid, cache_dir):
    mask = camvid / "trainannot" / "train_05.png"
    fake.write_labels(mask, np.full((24, 32), 77))
    with pytest.raises(SampleError, match=f"^mask {mask} has label 77, known are 0..11; "):
        class_counts(CamVid(camvid, "train"), cache_dir)
    assert not Path(cache_dir).exists()


def test_counts_that_cannot_be_saved_are_returned_with_a_message(camvid, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    counts = class_counts(CamVid(camvid, "train"), str(tmp_path / "file"))
    assert counts.sum(axis=1).min() > 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"cannot save the class counts as {tmp_path}/file/counts/camvid-train-\w{{16}}\.npy "
        r"\(Not a directory\); each run will count again",
        line,
    )


def test_a_write_that_fails_leaves_nothing(camvid, cache_dir, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    class_counts(CamVid(camvid, "train"), cache_dir)
    assert saved_files(cache_dir) == []


def test_weights_agree_with_a_case_computed_by_hand():
    counts = np.array([[6, 2, 0, 0], [0, 1, 1, 0]])
    # frequencies 6/8, 3/10, 1/2; their median is 1/2
    assert class_weights(counts) == pytest.approx([2 / 3, 5 / 3, 1, 0])


def test_weights_of_images_without_labels_are_zero():
    assert class_weights(np.zeros((3, 2), np.int64)).tolist() == [0, 0]


# Class frequencies in % of the labelled pixels, void in % of all pixels, and median-frequency
# weights of train, computed by other code.
SHARES = {
    "train": (17.54, 24.21, 1.02, 32.96, 4.67, 10.12, 1.22, 1.17, 6.11, 0.67, 0.30),
    "val": (9.34, 26.41, 0.57, 29.46, 8.87, 16.62, 0.91, 3.13, 1.78, 0.66, 2.26),
    "test": (17.75, 25.59, 1.22, 26.84, 9.64, 11.70, 1.05, 1.23, 4.13, 0.66, 0.20),
}
VOID_SHARES = {"train": 3.95, "val": 1.70, "test": 3.83}
WEIGHTS = (0.2794, 0.2018, 4.7889, 0.1491, 1, 0.4235, 3.8464, 1.9798, 0.7890, 6.3847, 8.8193)


@pytest.mark.parametrize("split", SHARES)
def test_class_frequencies_of_camvid_agree_with_other_code(real_data, cache_dir, split):
    counts = class_counts(CamVid(real_data / "camvid", split), cache_dir)
    shares = 100 * counts.sum(axis=0) / counts.sum()
    assert shares == pytest.approx(SHARES[split], abs=0.0051)
    void = 100 * (1 - counts.sum() / (len(counts) * 480 * 360))
    assert void == pytest.approx(VOID_SHARES[split], abs=0.0051)
    if split == "train":
        assert class_weights(counts) == pytest.approx(WEIGHTS, abs=0.000051)
