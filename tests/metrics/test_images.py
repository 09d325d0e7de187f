import math

import numpy as np
import pytest
import torch

from gald.metrics.images import ImageCounts


def counts_of(names, width=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = ImageCounts()
    for name in names:
        vector = torch.randint(0, 5, (width,), generator=generator)
        counts.add(name, "confusion", vector * (vector > 2))
        counts.add(name, "ece", vector[:4])
    return counts


def test_rows_are_in_the_order_of_sorted_names():
    counts = ImageCounts()
    counts.add("b", "confusion", torch.tensor([0, 2, 0, 0]))
    counts.add("a", "confusion", torch.tensor([1, 0, 0, 2**40]))
    assert counts.names == ["a", "b"]
    assert counts.dense("confusion").tolist() == [[1, 0, 0, 2**40], [0, 2, 0, 0]]
    assert counts.dense("confusion").dtype == np.int64


def test_class_counts_are_hits_true_and_predicted():
    counts = ImageCounts()
    counts.add("a", "confusion", torch.tensor([3, 1, 0, 4]))  # rows true, columns predicted
    assert counts.class_counts().tolist() == [[[3, 4], [4, 4], [3, 5]]]


def test_saved_counts_are_loaded_unchanged(tmp_path):
    counts = counts_of(["x/2.png", "x/1.png", "grüße"])
    counts.add("empty", "confusion", torch.zeros(9, dtype=torch.int64))
    counts.add("empty", "ece", torch.zeros(4, dtype=torch.int64))
    counts.save(tmp_path / "images_val.npz")
    again = ImageCounts.load(tmp_path / "images_val.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["images_val.npz"]
    assert again.names == counts.names and again.metrics == ["confusion", "ece"]
    for metric in counts.metrics:
        assert np.array_equal(again.dense(metric), counts.dense(metric))


def test_groups_are_in_the_order_of_names(tmp_path):
    counts = counts_of(["2", "1", "3"])
    assert counts.groups is None
    counts.save(tmp_path / "without.npz")
    assert ImageCounts.load(tmp_path / "without.npz").groups is None
    counts.set_groups({"1": "grüße", "2": "b", "3": "b", "of another split": "c"})
    assert counts.groups == ("grüße", "b", "b")
    counts.save(tmp_path / "with.npz")
    assert ImageCounts.load(tmp_path / "with.npz").groups == ("grüße", "b", "b")
    assert counts.gather().groups == ("grüße", "b", "b")


@pytest.mark.parametrize("groups", [{}, {"a": "x"}, {"a": "x", "b": ""}])
def test_image_without_a_group_is_named(groups):
    with pytest.raises(ValueError, match=f"{2 - ('a' in groups)} of 2 images have no group, first"):
        counts_of(["a", "b"]).set_groups(groups)


@pytest.mark.parametrize(
    "groups",
    [
        np.array(["x"]),
        np.array(["x", "y", "z"]),
        np.array([["x", "y"]]),
        np.array("x"),
        np.array([1, 2]),
        np.array([b"x", b"y"]),
        np.array(["x", ""]),
        np.array(["x", "\x1b[2J"]),
        np.array(["x", "y" * 1001]),
        np.array([{"a": 1}, None], dtype=object),
    ],
    ids=lambda groups: f"{groups.dtype}{groups.shape}",
)
def test_groups_that_are_no_names_are_refused(tmp_path, groups):
    counts_of(["a", "b"]).save(tmp_path / "c.npz")
    arrays = dict(np.load(tmp_path / "c.npz"))
    np.savez(tmp_path / "c.npz", **arrays, groups=groups)
    with pytest.raises(ValueError, match=r"c\.npz cannot be read as image counts \(") as refusal:
        ImageCounts.load(tmp_path / "c.npz")
    assert "\n" not in str(refusal.value) and "\x1b" not in str(refusal.value)


def test_confusion_of_no_number_of_classes_is_refused(tmp_path):
    counts_of(["a", "b"]).save(tmp_path / "c.npz")
    arrays = dict(np.load(tmp_path / "c.npz"))
    np.savez(tmp_path / "c.npz", **arrays | {"confusion.width": np.array(142)})
    with pytest.raises(ValueError, match=r"c\.npz cannot .* \(confusion has 142 counts .*evaluate"):
        ImageCounts.load(tmp_path / "c.npz")
    np.savez(tmp_path / "c.npz", **arrays | {"ece.width": np.array(142)})
    assert ImageCounts.load(tmp_path / "c.npz").width("ece") == 142


@pytest.mark.parametrize("kind", ["uint64", "uint16", "int32"])
def test_counts_of_any_integer_type_are_read_as_int64(tmp_path, kind):
    counts = counts_of(["a", "b"])
    counts.save(tmp_path / "c.npz")
    arrays = dict(np.load(tmp_path / "c.npz"))
    parts = {
        key: array.astype(kind)
        for key, array in arrays.items()
        if key.endswith((".places", ".values", ".ends"))
    }
    np.savez(tmp_path / "c.npz", **arrays | parts)
    again = ImageCounts.load(tmp_path / "c.npz")
    assert np.array_equal(again.total("confusion"), counts.total("confusion"))
    assert np.array_equal(again.class_counts(), counts.class_counts())


@pytest.mark.parametrize(
    ("part", "array", "fault"),
    [
        ("values", np.full(2, 2**63, np.uint64), "other values than counts"),
        ("ends", np.array([2, 1], np.uint64), "not in order"),
    ],
)
def test_unsigned_counts_that_are_out_of_bounds_are_refused(tmp_path, part, array, fault):
    counts = ImageCounts()
    for name in ("a", "b"):
        counts.add(name, "confusion", torch.tensor([1, 0, 0, 0]))
    counts.save(tmp_path / "c.npz")
    arrays = dict(np.load(tmp_path / "c.npz"))
    np.savez(tmp_path / "c.npz", **arrays | {f"confusion.{part}": array})
    with pytest.raises(ValueError, match=fault):
        ImageCounts.load(tmp_path / "c.npz")


def test_many_classes_take_little_disk_space(tmp_path):
    counts = ImageCounts()
    for i in range(100):
        vector = torch.zeros(171 * 171, dtype=torch.int64)
        vector[torch.randint(0, 171 * 171, (200,))] = 1000 + i
        counts.add(f"{i:03d}", "confusion", vector)
    counts.save(tmp_path / "c.npz")
    assert (tmp_path / "c.npz").stat().st_size < 100 * 200 * 8
    assert len(ImageCounts.load(tmp_path / "c.npz").dense("confusion")) == 100


def test_an_image_counted_twice_is_refused():
    counts = counts_of(["a"])
    with pytest.raises(ValueError, match="image a was counted twice for ece"):
        counts.add("a", "ece", torch.zeros(4, dtype=torch.int64))


def test_a_metric_without_counts_of_an_image_is_named(tmp_path):
    counts = counts_of(["a"])
    counts.add("b", "ece", torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="confusion was counted for 1 of 2 images"):
        counts.dense("confusion")
    with pytest.raises(ValueError, match="confusion was counted for 1 of 2 images"):
        counts.save(tmp_path / "c.npz")
    with pytest.raises(ValueError, match=r"size was counted for 0 of 2 images; choose .* \(conf"):
        counts.dense("size")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_damaged_file_is_reported_in_one_sentence(tmp_path, keep):
    path = tmp_path / "images_val.npz"
    counts_of(["a", "b", "c"]).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else math.floor(keep * len(whole))])
    with pytest.raises(ValueError, match=r"images_val\.npz cannot be read as image counts") as info:
        ImageCounts.load(path)
    assert "\n" not in str(info.value)


def test_pickled_content_is_not_unpickled(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, names=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read as image counts"):
        ImageCounts.load(path)


def test_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="gald eval writes them"):
        ImageCounts.load(tmp_path / "c.npz")


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    with pytest.raises(OSError, match="No space left"):
        counts_of(["a"]).save(tmp_path / "c.npz")
    assert not list(tmp_path.iterdir())
