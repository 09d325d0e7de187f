"""Our mIoU against official numbers: cityscapesScripts' evaluator, and ADE20K's sample."""

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


def draw_boxes(rng, size, labels, count):
    """A label map of overlapping boxes with random labels."""
    height, width = size
    label_map = np.full(size, labels[0], np.uint8)
    for label in rng.choice(labels, count):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(1, height // 3), rng.integers(1, width // 3)
        label_map[y : y + h, x : x + w] = label
    return label_map


def disturb(rng, mask):
    """A plausible prediction: shifted, without void, wrong in blocks and in single pixels."""
    labels = np.roll(mask, rng.integers(-4, 5, 2), (0, 1))
    classes = np.delete(np.arange(19, dtype=np.uint8), ABSENT)
    random = rng.choice(classes, mask.shape)
    blocks = draw_boxes(rng, mask.shape, classes, 40)
    labels = np.where(draw_boxes(rng, mask.shape, [0, 1], 8) == 1, blocks, labels)
    return np.where((labels == 255) | (rng.random(mask.shape) < 0.03), random, labels)


@pytest.fixture
def twin(tmp_path):
    """Return a function that writes a toy val split of Cityscapes, with plausible predictions."""

    def write(count, size):
        rng = np.random.default_rng(0)
        labels = [k for k, i in Cityscapes.label_map.items() if i not in (ABSENT, ONLY_PREDICTED)]
        labels.remove(255)
        for i in range(count):
            name = f"val/burg{i % 3}/burg{i % 3}_{i:06d}_000019"
            stored = draw_boxes(rng, size, labels, 150)
            fake.write_labels(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", stored)
            # The evaluator reads this file for its iIoU, which we do not compute.
            fake.write_labels(tmp_path / f"gtFine/{name}_gtFine_instanceIds.png", stored)
            fake.write_image(
                tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", np.zeros((*size, 3), np.uint8)
            )
        dataset = Cityscapes(tmp_path, "val")
        masks = [item["mask"] for item in map(dataset.__getitem__, range(count))]
        return tmp_path, masks, [disturb(rng, mask.numpy()) for mask in masks]

    return write


def our_scores(masks, predictions, dataset, categories=None):
    confusion = ConfusionMatrix(len(dataset.class_names), categories)
    for mask, labels in zip(masks, predictions, strict=True):
        confusion.update(LabelMap(torch.from_numpy(labels)[None], None), mask[None])
    return confusion.scores(confusion.compute(), dataset.class_names)


def official_scores(root, predictions):
    """Scores of the official evaluator for the zip that we would submit."""
    submission = Submission(Cityscapes, root, "val", subset=True)
    maps, results = root / "maps", root / "results"
    maps.mkdir(), results.mkdir()
    for name, labels in zip(submission.images, predictions, strict=True):
        (maps / name).write_bytes(submission.encode(labels))
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
    root, masks, predictions = twin(count, size)
    ours = our_scores(masks, predictions, Cityscapes, CATEGORIES)
    theirs = official_scores(root, predictions)
    print(f"mIoU: ours {ours['miou']!r}, official {theirs['averageScoreClasses']!r}")
    pairs = {"miou": theirs["averageScoreClasses"]}
    pairs["category_miou"] = theirs["averageScoreCategories"]
    pairs |= {f"iou/{name}": theirs["classScores"][name] for name in Cityscapes.class_names}
    pairs |= {f"category_iou/{name}": theirs["categoryScores"][name] for name in CATEGORIES}
    for key, score in pairs.items():
        assert ours[key] == pytest.approx(score, rel=0, abs=1e-12, nan_ok=True), key
    assert 0.2 < ours["miou"] < 0.9
    assert [key for key in pairs if math.isnan(ours[key])] == ["iou/train"]
    assert ours["classes_present"] == 18
    assert ours["iou/bus"] == 0


@pytest.fixture
def sample(real_data):
    """The label maps of the sample that is part of ADE20K's evaluation code."""
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
def test_ade20k_sample_scores_as_with_its_evaluation_code(
    sample, shift, over_all, over_present, accuracy
):
    table = np.array([ADE20K.label_map[i] for i in range(151)], np.uint8)
    masks = [torch.from_numpy(table[labels]) for labels in sample]
    shifted = [np.roll(labels, shift, (0, 1)) for labels in sample]
    predictions = [table[np.where(labels == 0, 1, labels)] for labels in shifted]
    ours = our_scores(masks, predictions, ADE20K)
    assert ours["miou"] == pytest.approx(over_present, abs=5e-7)
    assert ours["accuracy"] == pytest.approx(accuracy, abs=5e-7)
    # The official mean is over all 150 classes. Only 15 occur here; an absent class counts as 0.
    assert ours["miou"] * ours["classes_present"] / 150 == pytest.approx(over_all, abs=5e-7)
