"""What every metric promises, asked of each that conf/metrics/all.yaml names."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
import yaml
from hydra.utils import get_object, instantiate

from gald.config import CONF_DIR
from gald.inference import LabelMap
from gald.metrics.images import ImageCounts

CLASSES = 5
NAMES = [f"c{i}" for i in range(CLASSES)]
CONFIG = yaml.safe_load((CONF_DIR / "metrics" / "all.yaml").read_text())


def made():
    return {key: make(CLASSES) for key, make in instantiate(CONFIG).items()}


def scene(seed):
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
    metric, default = made()[key], get_object(CONFIG[key]["_target_"])(CLASSES)
    assert {k: getattr(metric, k) for k in given} == {k: getattr(default, k) for k in given}
    assert metric.name == key


@pytest.mark.parametrize("key", CONFIG)
def test_counts_of_images_add_up_to_those_of_the_set(key):
    metric, scenes = made()[key], [scene(seed) for seed in range(4)]
    counts = [metric.count(*item) for item in scenes]
    assert all(c.shape == (metric.width,) and c.dtype == torch.int64 for c in counts)
    for item in scenes:
        metric.update(*batch(*item))
    assert torch.equal(metric.compute(), sum(counts))
    assert metric.compute().sum() > 0
    scores = metric.scores(metric.compute(), NAMES)
    assert scores and all(isinstance(value, float | int) for value in scores.values())


@pytest.mark.parametrize("key", CONFIG)
def test_void_counts_nowhere(key):
    metric, (prediction, mask) = made()[key], scene(0)
    other = prediction.labels.clone()
    other[mask == 255] = (other[mask == 255] + 1) % (CLASSES - 1)
    sure = prediction.confidence.clone()
    sure[mask == 255] = 0.123
    assert (mask == 255).any()
    assert torch.equal(metric.count(LabelMap(other, sure), mask), metric.count(prediction, mask))


@pytest.mark.parametrize("key", CONFIG)
def test_image_of_nothing_but_void_gives_no_score(key):
    metric, (prediction, mask) = made()[key], scene(0)
    scores = metric.scores(metric.count(prediction, torch.full_like(mask, 255)), NAMES)
    numbers = {k: v for k, v in scores.items() if v == v}
    counts_alone = ("classes", "objects", "present")
    if key != "boundary_f_authors":  # a class that neither side has scores 1 there
        assert not any(v for k, v in numbers.items()), numbers
        assert all(any(word in k for word in counts_alone) for k in numbers), numbers


def test_perfect_prediction_scores_one():
    _, mask = scene(0)
    right = LabelMap(torch.where(mask == 255, 0, mask), torch.ones(mask.shape))
    found = {}
    for metric in made().values():
        found |= metric.scores(metric.count(right, mask), NAMES)
    assert found["ece"] == 0 and found["trimap/1"] == 0
    for key in ("miou", "fw_iou", "boundary_iou/0.02", "boundary_f/1", "boundary_f_authors/0.005"):
        assert found[key] == 1, key


def share(rank, processes, folder):
    store = f"file://{folder}/store{processes}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    images, metrics = ImageCounts(), made()
    for seed in range(rank, 7, processes):
        item = scene(seed)
        for metric in metrics.values():
            metric.update(*batch(*item))
            images.add(f"image{seed}", metric.name, metric.count(*item))
    totals = {key: metric.compute() for key, metric in metrics.items()}
    images = images.gather()
    if rank == processes - 1:
        torch.save(totals, folder / "totals.pt")
        images.save(folder / "images.npz")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_seven_images_count_the_same_under_any_number_of_processes(processes, tmp_path):
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=share, args=(rank, processes, tmp_path)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    alone, images = made(), ImageCounts()
    for seed in range(7):
        for metric in alone.values():
            metric.update(*batch(*scene(seed)))
            images.add(f"image{seed}", metric.name, metric.count(*scene(seed)))
    totals = torch.load(tmp_path / "totals.pt", weights_only=True)
    gathered = ImageCounts.load(tmp_path / "images.npz")
    assert gathered.names == images.names
    for key, metric in alone.items():
        assert torch.equal(totals[key], metric.compute()), key
        assert (gathered.dense(key) == images.dense(key)).all(), key
        assert (gathered.total(key) == metric.compute().numpy()).all(), key
