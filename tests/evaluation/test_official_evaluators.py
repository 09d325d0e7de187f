"""Our mIoU against those who judge: cityscapesScripts' evaluator, and ADE20K's published sample."""

import json
import math
import os
import subprocess
import zipfile
from pathlib import Path

import fake
import numpy as np
import pytest
import torch

from gald.data.ade20k import ADE20K
from gald.data.cityscapes import Cityscapes
from gald.inference import LabelMap
from gald.metrics.confusion import ConfusionMatrix
from gald.prediction.submission import Submission

EVALUATOR = Path(__file__).parents[2] / ".venv-evaluators/bin/csEvalPixelLevelSemanticLabeling"
ABSENT, ONLY_PREDICTED = 16, 15  # train, bus
CATEGORIES = {
    "flat": ["road", "sidewalk"],
    "construction": ["building", "wall", "fence"],
    "object": ["pole", "traffic light", "traffic sign"],
    "nature": ["vegetation", "terrain"],
    "sky": ["sky"],
    "human": ["person", "rider"],
    "vehicle": ["car", "truck", "bus", "train", "motorcycle", "bicycle"],
}


def draw(rng, size, labels, count):
    """A map in which boxes of random labels cover each other."""
    height, width = size
    scene = np.full(size, labels[0], np.uint8)
    for label in rng.choice(labels, count):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(1, height // 3), rng.integers(1, width // 3)
        scene[y : y + h, x : x + w] = label
    return scene


def disturb(rng, truth):
    """What a network might say: shifted, no void, wrong in blocks and in single pixels."""
    guess = np.roll(truth, rng.integers(-4, 5, 2), (0, 1))
    classes = np.delete(np.arange(19, dtype=np.uint8), ABSENT)
    anything = rng.choice(classes, truth.shape)
    blocks = draw(rng, truth.shape, classes, 40)
    guess = np.where(draw(rng, truth.shape, [0, 1], 8) == 1, blocks, guess)
    return np.where((guess == 255) | (rng.random(truth.shape) < 0.03), anything, guess)


@pytest.fixture
def twin(tmp_path):
    """Writes the val part of Cityscapes, and gives what a network might say about it."""

    def write(count, size):
        rng = np.random.default_rng(0)
        labels = [k for k, i in Cityscapes.label_map.items() if i not in (ABSENT, ONLY_PREDICTED)]
        labels.remove(255)
        for i in range(count):
            name = f"val/burg{i % 3}/burg{i % 3}_{i:06d}_000019"
            stored = draw(rng, size, labels, 150)
            fake.write_labels(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", stored)
            # Without a single object: the evaluator reads them for its iIoU, which is not ours.
            fake.write_labels(tmp_path / f"gtFine/{name}_gtFine_instanceIds.png", stored)
            fake.write_image(
                tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", np.zeros((*size, 3), np.uint8)
            )
        dataset = Cityscapes(tmp_path, "val")
        truths = [item["mask"] for item in map(dataset.__getitem__, range(count))]
        return tmp_path, truths, [disturb(rng, truth.numpy()) for truth in truths]

    return write


def ours(truths, guesses, dataset, categories=None):
    confusion = ConfusionMatrix(len(dataset.class_names), categories)
    for truth, guess in zip(truths, guesses, strict=True):
        confusion.update(LabelMap(torch.from_numpy(guess)[None], None), truth[None])
    return confusion.scores(confusion.compute(), dataset.class_names)


def official(root, guesses):
    """What the evaluator says of the zip that we would submit."""
    submission = Submission(Cityscapes, root, "val", subset=True)
    maps, results = root / "maps", root / "results"
    maps.mkdir(), results.mkdir()
    for name, guess in zip(submission.images, guesses, strict=True):
        (maps / name).write_bytes(submission.encode(guess))
    submission.check(maps)
    submission.pack(maps, root / "val.zip")
    with zipfile.ZipFile(root / "val.zip") as packed:
        packed.extractall(results)
    places = {"DATASET": root, "RESULTS": results, "EXPORT_DIR": root}
    environment = os.environ | {f"CITYSCAPES_{key}": str(place) for key, place in places.items()}
    subprocess.run([EVALUATOR], env=environment, check=True, capture_output=True, timeout=300)
    return json.loads((root / "resultPixelLevelSemanticLabeling.json").read_text())


@pytest.mark.parametrize(
    ("count", "size"),
    [(4, (96, 192)), pytest.param(15, (1024, 2048), marks=pytest.mark.slow)],
    ids=["small", "full size"],
)
def test_miou_is_that_of_the_cityscapes_evaluator(twin, count, size):
    if not EVALUATOR.is_file():
        pytest.skip("cityscapesScripts is not installed; run: make official-evaluators")
    root, truths, guesses = twin(count, size)
    mine, theirs = ours(truths, guesses, Cityscapes, CATEGORIES), official(root, guesses)
    print(f"mIoU: ours {mine['miou']!r}, official {theirs['averageScoreClasses']!r}")
    pairs = {"miou": theirs["averageScoreClasses"]}
    pairs["category_miou"] = theirs["averageScoreCategories"]
    pairs |= {f"iou/{name}": theirs["classScores"][name] for name in Cityscapes.class_names}
    pairs |= {f"category_iou/{name}": theirs["categoryScores"][name] for name in CATEGORIES}
    for key, judged in pairs.items():
        assert mine[key] == pytest.approx(judged, rel=0, abs=1e-12, nan_ok=True), key
    assert 0.2 < mine["miou"] < 0.9
    assert [key for key in pairs if math.isnan(mine[key])] == ["iou/train"]
    assert mine["classes_present"] == 18
    assert mine["iou/bus"] == 0


@pytest.fixture
def sample(real_data):
    """The label maps of the sample that ADE20K's evaluation code comes with."""
    folder = real_data / "samples" / "ade20k"
    if not folder.is_dir():
        pytest.skip(f"no samples at {folder}")
    dataset = ADE20K(folder, "val")
    return [dataset.read_labels(sample) for sample in dataset.samples]


@pytest.mark.parametrize(
    ("shift", "over_all", "over_present", "accuracy"),
    [((0, 0), 0.1, 1.0, 1.0), ((5, 9), 0.057125, 0.571247, 0.902227)],
    ids=["as published", "shifted"],
)
def test_ade20k_sample_scores_as_its_evaluation_code_says(
    sample, shift, over_all, over_present, accuracy
):
    table = np.array([ADE20K.label_map[i] for i in range(151)], np.uint8)
    truths = [torch.from_numpy(table[labels]) for labels in sample]
    moved = [np.roll(labels, shift, (0, 1)) for labels in sample]
    guesses = [table[np.where(labels == 0, 1, labels)] for labels in moved]
    mine = ours(truths, guesses, ADE20K)
    assert mine["miou"] == pytest.approx(over_present, abs=5e-7)
    assert mine["accuracy"] == pytest.approx(accuracy, abs=5e-7)
    # The official mean is over all 150 classes, of which 15 are here: an absent one counts as 0.
    assert mine["miou"] * mine["classes_present"] / 150 == pytest.approx(over_all, abs=5e-7)
