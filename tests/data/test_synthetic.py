import numpy as np
import pytest
import torch

from gald.data.synthetic import SyntheticDataModule, SyntheticStreets


def test_scene_is_a_function_of_seed_and_index():
    first, second = SyntheticStreets(count=8), SyntheticStreets(count=4)
    for index in (3, 0, 3):
        a, b = first[index], second[index]
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])
    assert not torch.equal(first[0]["image"], first[1]["image"])
    assert not torch.equal(first[0]["image"], SyntheticStreets(count=8, seed=1)[0]["image"])


def test_splits_are_disjoint():
    scenes = [
        SyntheticStreets(split, 16)[i]["image"].numpy().tobytes()
        for split in SyntheticStreets.splits
        for i in range(16)
    ]
    assert len(set(scenes)) == 48


@pytest.mark.parametrize("size", [(96, 128), (64, 64), (45, 83), (160, 320)])
def test_scenes_have_the_requested_size_and_known_labels(size):
    dataset = SyntheticStreets(count=12, size=size)
    for i in range(12):
        item = dataset[i]
        assert item["image"].shape == (3, *size) and item["mask"].shape == size
        assert item["image"].dtype == item["mask"].dtype == torch.uint8
        assert set(item["mask"].unique().tolist()) <= {*range(10), 255}


def test_every_class_and_void_occur():
    dataset = SyntheticStreets(count=64)
    counts = sum(np.bincount(dataset[i]["mask"].numpy().ravel(), minlength=256) for i in range(64))
    share = counts / counts.sum()
    assert (share[:10] > 0.005).all() and 0.001 < share[255] < 0.1
    assert counts[10:255].sum() == 0


@pytest.mark.integration
def test_the_strip_is_water_exactly_under_an_overcast_sky_and_looks_the_same():
    """Near the road both have the same colours, so that only the sky distinguishes them."""
    dataset = SyntheticStreets(count=200)
    colours = {4: [], 5: []}
    for i in range(200):
        image, mask = dataset[i]["image"].float(), dataset[i]["mask"]
        wet = bool((mask == 5).sum() > 30)
        strip = mask == (5 if wet else 4)
        strip[: mask.shape[0] // 2 + 4] = False  # trees stand higher
        if strip.sum() > 60:
            colours[5 if wet else 4].append(image[:, strip].mean(1))
    dry, wet = (torch.stack(colours[label]) for label in (4, 5))
    assert len(dry) > 15 and len(wet) > 15
    gap = (dry.mean(0) - wet.mean(0)).abs()
    assert (gap < 0.6 * torch.cat([dry, wet]).std(0)).all()


def test_poles_are_thin():
    dataset = SyntheticStreets(count=32)
    runs = []
    for i in range(32):
        for row in (dataset[i]["mask"].numpy() == 6)[30:60]:
            edges = np.flatnonzero(np.diff(np.pad(row.astype(int), 1)))
            runs += list(edges[1::2] - edges[::2])
    assert 2 <= np.median(runs) <= 3


def test_module_serves_three_sets_that_do_not_depend_on_the_training_seed():
    options = {"train_count": 8, "val_count": 3, "test_count": 2, "num_workers": 0}
    modules = [SyntheticDataModule(seed=seed, **options) for seed in (0, 1)]
    for module in modules:
        module.setup()
    assert [len(d) for d in (module.train_dataset, module.val_dataset, module.test_dataset)] == [
        8,
        3,
        2,
    ]
    (a,), (b,) = (next(iter(module.val_dataloader())) for module in modules)
    assert torch.equal(a["image"], b["image"])
    assert module.num_classes == len(module.class_names) == len(module.palette) == 10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "dev"}, r"split \(dev\).*train, val, test"),
        ({"size": (16, 128)}, r"size \(\[16, 128\]\)"),
        ({"count": 0}, r"count \(0\)"),
    ],
)
def test_wrong_options_name_the_value(options, match):
    with pytest.raises(ValueError, match=match):
        SyntheticStreets(**options)
