import fake
import numpy as np
import pytest

from gald.config import compose
from gald.data.crackforest import CrackForest, CrackForestDataModule
from gald.data.groups import groups_of
from gald.data.reading.sample_error import SampleError


def test_number_decides_the_split(tmp_path):
    root = fake.crackforest(tmp_path)
    names = {s: [one.name for one in CrackForest(root, s).samples] for s in CrackForest.splits}
    assert names["val"] == ["070", "071", "079"] and names["test"] == ["080", "118"]
    assert names["train"] == ["001", "002", "012", "058", "068", "069"]


def test_segments_and_ids_give_the_same_labels(tmp_path):
    segments, ids = (
        CrackForest(fake.crackforest(tmp_path / kind, kind), "train") for kind in ("seg", "ids")
    )
    for i in range(len(ids)):
        segments.check_header(i)
        mask = segments[i]["mask"].numpy()
        assert set(np.unique(mask)) == {0, 1}
        assert (mask == ids[i]["mask"].numpy()).all()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("data\r\n", "", "'data' is not in list"),
        ("height 24", "hight 24", "'height'"),
        ("height 24", "height -1", "negative dimensions|outside"),
        ("height 24", "height 24000000", "pixels, and at most"),
        ("height 24", "height 25", "no run covers row 24, column 0"),
        ("height 24", "height x", "invalid literal"),
        ("data\r\n", "data\r\n4 0 0 1\r\n", "the run 4 0 0 1 is outside"),
        ("data\r\n", "data\r\n0 0 0 32\r\n", "the run 0 0 0 32 is outside"),
        ("data\r\n", "data\r\n0 0 5 4\r\n", "the run 0 0 5 4 is outside"),
        ("data\r\n", "data\r\n0 -1 0 1\r\n", "the run 0 -1 0 1 is outside"),
        ("data\r\n", "data\r\n0 0 0\r\n", "expected 4, got 3"),
        ("data\r\n", "data\r\n0 0 0 9999999999999999999999\r\n", ""),
    ],
)
def test_damaged_list_of_segments_is_refused_in_one_sentence(tmp_path, old, new, problem):
    dataset = CrackForest(fake.crackforest(tmp_path), "test")
    path = dataset.samples[0].mask
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(SampleError, match=f"mask .*080.seg.*{problem}") as refusal:
        dataset.pixels(0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["119", "000", "a", "²"])
def test_photograph_without_a_known_number_is_refused(tmp_path, name):
    root = fake.crackforest(tmp_path, "ids")
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        path = root / kind / "val" / f"001.{ending}"
        path.rename(path.with_stem(name))
    with pytest.raises(SampleError, match=f"{name}.jpg has no number from 001 to 118"):
        CrackForest(root, "val")


def test_mask_without_an_image_is_refused(tmp_path):
    root = fake.crackforest(tmp_path)
    (root / "image" / "080.jpg").unlink()
    with pytest.raises(SampleError, match=r"080\.seg has no image 080\.jpg"):
        CrackForest(root, "test")


def test_group_is_the_ten_of_the_number():
    groups = compose("train", ["data=crackforest"]).data.groups
    assert groups_of(["image/001.jpg", "a/010.png", "118.jpg"], groups) == ["00", "01", "11"]


def test_real_photographs(real_data):
    root = real_data / "crackforest"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    groups = compose("train", ["data=crackforest"]).data.groups
    data = CrackForestDataModule(str(root), groups=groups)
    found = {}
    for split, counts in CrackForest.published_counts.items():
        dataset = data.make_dataset(split)
        assert len(dataset) in counts
        found[split] = set(data.groups_in(dataset))
    assert found == {
        "train": {f"0{ten}" for ten in range(7)},
        "val": {"07"},
        "test": {"08", "09", "10", "11"},
    }
    share = (data.make_dataset("test")[0]["mask"] == 1).float().mean()
    assert 0.005 < share < 0.1
