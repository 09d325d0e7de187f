"""Recipes of `experiment=DATASET_NETWORK`: complete headers, a current table, two steps of each."""

import gc
import importlib.util
import re
from pathlib import Path

import fake
import pytest
import torch
from hydra.utils import instantiate

from gald.config import CONF_DIR, compose
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision
from gald.options.check import check_config
from gald.options.roots import Train
from gald.profiling.memory import TensorMemoryTracker
from gald.task import SegmentationTask

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipes.md"
WRITERS = {
    "cityscapes": fake.cityscapes,
    "ade20k": fake.ade20k,
    "pascal_context": fake.pascal_context,
    "coco_stuff": fake.coco_stuff_10k,
    "camvid": fake.camvid,
}
HEADER = ("Source: ", "Hardware: ", "Computed by benchmarks/recipes.py: ", "Reported: ", "Not run.")


def load_script():
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "benchmarks" / "recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
RECIPES = SCRIPT.recipes()


def header(name):
    text = (CONF_DIR / "experiment" / f"{name}.yaml").read_text()
    return " ".join(line[2:] for line in text.partition("defaults:")[0].splitlines())


def rows():
    """The cells of each row of the page's first table, by recipe."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row for row in cells if len(row) == 8}


def test_there_is_a_recipe_of_the_authors_and_a_modern_one_for_each_dataset():
    for data in WRITERS:
        for family in ("gald_r50", "dinov3_s", "dinov3_b", "convnext_b"):
            assert f"{data}_{family}" in RECIPES
    assert "cityscapes_gald_r101" in RECIPES and len(RECIPES) == 21


@pytest.mark.parametrize("name", RECIPES)
def test_header_is_complete_and_has_the_numbers_of_the_page(name):
    text = header(name)
    places = [text.index(part) for part in (f"gald train experiment={name}", *HEADER)]
    assert places == sorted(places)
    found = re.search(
        r"py: ([\d.]+) M .*?, (\d+) GMACs for (\d+)x\d+, ([\d.]+) GiB .* (\d+) im", text
    )
    millions, gmacs, side, gib, images = found.groups()
    row = rows()[name]
    assert row[1:6] == [millions, gmacs, side, images, gib]
    assert row[-1] == "not run"


def test_page_lists_every_recipe_once():
    assert list(rows()) == RECIPES


@pytest.mark.parametrize("data", WRITERS)
def test_options_of_the_recipes_are_valid(data):
    for name in RECIPES:
        if name.startswith(data):
            cfg = compose("train", [f"experiment={name}"])
            check_config(cfg, Train)
            assert cfg.name == name and cfg.data.root.endswith(f"/{data}")
            crop, window = cfg.data.train_transform.crop_size, cfg.inference.get("window")
            assert f"{crop[0]}x{crop[1]}" in header(name)
            assert window is None or (cfg.inference.stride is None or window == crop)


@pytest.mark.integration
def test_computed_memory_is_that_of_a_real_step():
    cfg = compose("train", ["model.channels=16", "model.backbone.name=test_resnet", "model/ga=psp"])
    model = instantiate(cfg.model, num_classes=7).train()
    loss = DeepSupervision(CrossEntropy(), CrossEntropy())
    image = torch.randint(256, (2, 3, 96, 80), dtype=torch.uint8)
    mask = torch.randint(7, (2, 96, 80), dtype=torch.uint8)
    for dtype in (None, torch.bfloat16):
        given = [*model.parameters(), *model.buffers(), image, mask]
        with TensorMemoryTracker(given) as tracker:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                value = loss(model(image), mask)
            torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        computed = SCRIPT.step_bytes(model, loss, 2, [96, 80], dtype)
        assert computed == pytest.approx(tracker.peak, rel=0.02)


@pytest.fixture
def train_two_steps(gald_cli, tmp_path, monkeypatch):
    """Yield a function that trains a recipe for two steps on its toy twin and counts them."""
    # The published mask is not padded, so that it needs 15 cells a side, 111 px.
    monkeypatch.setattr(fake, "HEIGHT", 128)
    monkeypatch.setattr(fake, "WIDTH", 160)
    steps, start = [], SegmentationTask.on_train_batch_start

    def count(self, batch, index):
        steps.append(tuple(batch["image"].shape))
        return start(self, batch, index)

    monkeypatch.setattr(SegmentationTask, "on_train_batch_start", count)

    def train(name):
        cfg = compose("train", [f"experiment={name}"])
        data = next(data for data in WRITERS if name.startswith(data))
        side = 129 if "_gald_" in name else 64
        gald_cli(
            *("train", f"experiment={name}", f"data.root={WRITERS[data](tmp_path / data)}"),
            *(f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}"),
            *("data.global_batch_size=2", "data.num_workers=0", "scheduler.warmup_steps=0"),
            *(f"data.train_transform.crop_size=[{side},{side}]", "trainer=default"),
            *("trainer.accelerator=cpu", f"trainer.precision={cfg.trainer.precision}"),
            *("trainer.fast_dev_run=2", "model.backbone.weights=null", "logger=csv"),
            *("report=false", "test=false"),
        )
        assert steps == [(2, 3, side, side)] * 2

    yield train
    gc.collect()  # a training is full of cycles, and the next one needs its memory


@pytest.mark.slow
def test_a_recipe_trains_at_full_width(train_two_steps, capsys):
    train_two_steps("camvid_dinov3_s")
    assert "fast_dev_run: training and validation ran" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_at_full_width(name, train_two_steps):
    train_two_steps(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_row_of_the_page_is_current(name):
    assert SCRIPT.row(name, SCRIPT.cost(name)).strip("| ") in PAGE.read_text()
