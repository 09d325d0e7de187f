"""Properties that every metric of conf/metrics/all.yaml must have."""

import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from hydra.utils import get_object, instantiate

from gald.config import CONF_DIR
from gald.inference import LabelMap
from gald.metrics.base import CountMetric
from gald.metrics.images import ImageCounts

CLASSES = 5
NAMES = [f"c{i}" for i in range(CLASSES)]
CONFIG = yaml.safe_load((CONF_DIR / "metrics" / "all.yaml").read_text())


def build_metrics():
    return {key: make(CLASSES) for key, make in instantiate(CONFIG).items()}


def sample(seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, CLASSES - 1, (6, 8), dtype=torch.uint8, generator=generator)
    mask = mask.repeat_interleave(4 + seed % 3, 0).repeat_interleave(5, 1)
    labels = mask.roll((1, 2), (0, 1))
    mask[torch.rand(mask.shape, generator=generator) < 0.05] = 255
    return LabelMap(labels % 255, torch.rand(mask.shape, generator=generator)), mask


def batch(prediction, mask):
    return LabelMap(prediction.labels[None], prediction.confidence[None]), mask[None]


@pytest.mark.parametrize("key", CONFIG)
def test_config_states_every_argument_at_its_default(key):
    given = {k: v for k, v in CONFIG[key].items() if not k.startswith("_")}
    metric, default = build_metrics()[key], get_object(CONFIG[key]["_target_"])(CLASSES)
    assert {k: getattr(metric, k) for k in given} == {k: getattr(default, k) for k in given}
    assert metric.name == key


@pytest.mark.parametrize("key", CONFIG)
def test_counts_of_images_add_up_to_those_of_the_set(key):
    metric, samples = build_metrics()[key], [sample(seed) for seed in range(4)]
    counts = [metric.count(*item) for item in samples]
    assert all(c.shape == (metric.width,) and c.dtype == torch.int64 for c in counts)
    for item in samples:
        metric.update(*batch(*item))
    assert torch.equal(metric.compute(), sum(counts))
    assert metric.compute().sum() > 0
    scores = metric.scores(metric.compute(), NAMES)
    assert scores and all(isinstance(value, float | int) for value in scores.values())


@pytest.mark.parametrize("key", CONFIG)
def test_scores_of_many_sets_equal_the_plain_formula_for_one(key):
    metric = build_metrics()[key]
    if key == "confusion":
        metric = get_object(CONFIG[key]["_target_"])(CLASSES, {"a": NAMES[:2], "b": NAMES[2:]})
    images = np.stack([metric.count(*sample(seed)).numpy() for seed in range(6)])
    drawn = np.random.default_rng(0).multinomial(6, np.ones(6) / 6, size=20)
    drawn = np.concatenate([drawn, np.eye(6, dtype=int), np.zeros((1, 6), int)])
    sums = drawn.astype(float) @ images.astype(float)  # as a bootstrap adds them up
    table = metric.scores_of_sets(sums, NAMES)
    for number, vector in enumerate(sums):
        expected = metric.scores(torch.from_numpy(vector).long(), NAMES)
        found = {name: float(column[number]) for name, column in table.items()}
        assert list(found) == list(expected)
        assert found == pytest.approx(expected, rel=1e-13, nan_ok=True)


@pytest.mark.parametrize("key", CONFIG)
def test_a_score_depends_on_no_other_places_than_it_says(key):
    metric = build_metrics()[key]
    counts = np.random.default_rng(0).integers(1, 100, (1, metric.width))
    whole = metric.scores_of_sets(counts, NAMES)
    assert np.mean([np.isfinite(values[0]) for values in whole.values()]) > 0.8
    for name, values in whole.items():
        few = np.zeros_like(counts)
        few[:, metric.places(name)] = counts[:, metric.places(name)]
        np.testing.assert_array_equal(metric.scores_of_sets(few, NAMES)[name], values, name)


@pytest.mark.parametrize("key", ["boundary_f", "boundary_iou", "size"])
def test_comparisons_count_the_classes_with_true_pixels_and_no_others(key):
    metric = build_metrics()[key]
    mask, labels = torch.zeros((2, 12, 12), dtype=torch.uint8)
    mask[2:6, 2:6] = 1  # true and never predicted: it counts, with a score of 0
    labels[7:10, 7:10] = 2  # predicted and never true: it does not count
    kept = metric.true_classes_only(metric.count(LabelMap(labels, None), mask).numpy()[None])
    found = {name: float(value[0]) for name, value in metric.scores_of_sets(kept, NAMES).items()}
    if key == "size":
        assert found["size/iou/to_100%"] == pytest.approx((119 / 144 + 0) / 2)
    else:
        mean, ground, missed, false = (found[f"{key}/3{end}"] for end in ("", "/c0", "/c1", "/c2"))
        assert missed == 0 and np.isnan(false) and mean == pytest.approx(ground / 2)


def test_metric_without_a_method_for_many_sets_scores_one_after_the_other():
    class Wrong(CountMetric):
        name, label = "wrong", "wrong pixels"

        def count_arrays(self, labels, mask, confidence):
            return np.array([(labels != mask).sum(), mask.size])

        def scores(self, counts, class_names):
            assert counts.dtype == torch.int64
            wrong, pixels = counts.tolist()
            return {"wrong": wrong / pixels if pixels else float("nan")}

    found = Wrong(2, 2).scores_of_sets(np.array([[1.0, 4.0], [0.0, 0.0]]), NAMES)
    assert found["wrong"][0] == 0.25 and np.isnan(found["wrong"][1])


@pytest.mark.parametrize("key", CONFIG)
def test_void_is_not_counted(key):
    metric, (prediction, mask) = build_metrics()[key], sample(0)
    other = prediction.labels.clone()
    other[mask == 255] = (other[mask == 255] + 1) % (CLASSES - 1)
    confidence = prediction.confidence.clone()
    confidence[mask == 255] = 0.123
    assert (mask == 255).any()
    changed = LabelMap(other, confidence)
    assert torch.equal(metric.count(changed, mask), metric.count(prediction, mask))


@pytest.mark.parametrize("key", CONFIG)
def test_image_that_is_all_void_gives_no_score(key):
    metric, (prediction, mask) = build_metrics()[key], sample(0)
    scores = metric.scores(metric.count(prediction, torch.full_like(mask, 255)), NAMES)
    numbers = {k: v for k, v in scores.items() if v == v}
    words_of_counts = ("classes", "objects", "present")
    if key != "boundary_f_authors":  # there an absent class scores 1
        assert not any(v for k, v in numbers.items()), numbers
        assert all(any(word in k for word in words_of_counts) for k in numbers), numbers


def test_perfect_prediction_scores_one():
    _, mask = sample(0)
    perfect = LabelMap(torch.where(mask == 255, 0, mask), torch.ones(mask.shape))
    scores = {}
    for metric in build_metrics().values():
        scores |= metric.scores(metric.count(perfect, mask), NAMES)
    assert scores["ece"] == 0 and scores["trimap/1"] == 0
    for key in ("miou", "fw_iou", "boundary_iou/0.02", "boundary_f/1", "boundary_f_authors/0.005"):
        assert scores[key] == 1, key


def count_share(rank, processes, folder):
    store = f"file://{folder}/store{processes}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    images, metrics = ImageCounts(), build_metrics()
    for seed in range(rank, 7, processes):
        item = sample(seed)
        for metric in metrics.values():
            metric.update(*batch(*item))
            images.add(f"image{seed}", metric.name, metric.count(*item))
    totals = {key: metric.compute() for key, metric in metrics.items()}
    assert images.groups is None
    images.set_groups({f"image{seed}": f"video {seed // 2}" for seed in range(7)})
    images = images.gather()
    if rank == processes - 1:
        torch.save(totals, folder / "totals.pt")
        images.save(folder / "images.npz")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_seven_images_have_the_same_counts_with_any_number_of_processes(processes, tmp_path):
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=count_share, args=(rank, processes, tmp_path))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    expected, images = build_metrics(), ImageCounts()
    for seed in range(7):
        for metric in expected.values():
            metric.update(*batch(*sample(seed)))
            images.add(f"image{seed}", metric.name, metric.count(*sample(seed)))
    totals = torch.load(tmp_path / "totals.pt", weights_only=True)
    gathered = ImageCounts.load(tmp_path / "images.npz")
    assert gathered.groups == tuple(f"video {number}" for number in (0, 0, 1, 1, 2, 2, 3))
    assert gathered.names == images.names
    for key, metric in expected.items():
        assert torch.equal(totals[key], metric.compute()), key
        assert (gathered.dense(key) == images.dense(key)).all(), key
        assert (gathered.total(key) == metric.compute().numpy()).all(), key
