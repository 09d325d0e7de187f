from collections import Counter

import cv2
import fake
import numpy as np
import pytest

from gald.config import compose
from gald.data.groups import groups_of
from gald.data.labelmefacade import LabelMeFacade, LabelMeFacadeDataModule, split_of
from gald.data.reading.sample_error import SampleError


@pytest.mark.parametrize("kind", ["colours", "ids"])
def test_place_decides_the_split(tmp_path, kind):
    root = fake.labelmefacade(tmp_path, kind)
    parts = [LabelMeFacade(root, split) for split in LabelMeFacade.splits]
    assert [len(part) for part in parts] == [6, 3, 2]
    for part in parts:
        assert {split_of(part.image_name(i)) for i in range(len(part))} == {part.split}


def test_colours_and_ids_give_the_same_labels(tmp_path):
    colours, ids = (
        LabelMeFacade(fake.labelmefacade(tmp_path / kind, kind), "train+test")
        for kind in ("colours", "ids")
    )
    for i in range(len(ids)):
        colours.check_header(i)
        mask = colours[i]["mask"].numpy()
        assert set(np.unique(mask)) == {*range(8), 255}
        assert (mask == ids[i]["mask"].numpy()).all()


def test_classes_have_the_owners_colours():
    named = dict(zip(LabelMeFacade.class_names, LabelMeFacade.palette, strict=True))
    assert named["window"] == (0, 0, 128) and named["road"] == (128, 64, 0)
    assert LabelMeFacade.palette == fake.LABELMEFACADE[1:]


def test_other_colour_is_named(tmp_path):
    root = fake.labelmefacade(tmp_path)
    dataset = LabelMeFacade(root, "test")
    colours = np.zeros((fake.HEIGHT, fake.WIDTH, 3), int)
    colours[3, 5] = 128, 64, 64
    fake.write_deep(dataset.samples[1].mask, colours)
    with pytest.raises(SampleError, match=r"has colour \[128, 64, 64\] in row 3, column 5, which"):
        dataset.pixels(1)


def test_values_that_need_16_bits_are_refused(tmp_path):
    root = fake.labelmefacade(tmp_path)
    dataset = LabelMeFacade(root, "test")
    deep = np.full((fake.HEIGHT, fake.WIDTH, 3), 300, np.uint16)
    assert cv2.imwrite(str(dataset.samples[0].mask), deep)
    with pytest.raises(SampleError, match="stores 16 bits per value"):
        dataset.pixels(0)


def test_no_data_names_root_and_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*gald data prepare labelmefacade"):
        LabelMeFacade(tmp_path)


def test_real_photographs_of_a_place_are_in_one_split(real_data):
    root = real_data / "labelmefacade"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    data = LabelMeFacadeDataModule(
        str(root), groups=compose("train", ["data=labelmefacade"]).data.groups
    )
    places = {}
    for split, counts in LabelMeFacade.published_counts.items():
        dataset = data.make_dataset(split)
        assert len(dataset) in counts
        places[split] = Counter(data.groups_in(dataset))
    assert [len(places[split]) for split in LabelMeFacade.splits] == [33 + 1, 6, 33]
    assert not places["train"].keys() & places["val"].keys()
    assert not (places["train"] | places["val"]).keys() & places["test"].keys()
    palma = [
        split
        for split, names in places.items()
        if any("palma_" in n or n.endswith("palma") for n in names)
    ]
    assert palma == ["test"]
    assert sum(n for _, n in places["test"].most_common(3)) / sum(places["test"].values()) > 0.6
    item = data.make_dataset("val")[0]
    assert set(item["mask"].unique().tolist()) <= {*range(8), 255}


def test_place_is_the_name_before_the_underscores():
    groups = compose("train", ["data=labelmefacade"]).data.groups
    assert groups_of(["images/train/a_b__IMG__1.jpg", "images/x__y.jpg"], groups) == ["a_b", "x"]
