"""Finished sweeps on disk, for benchmarks: files as an evaluation writes them, without training.

A few pretended networks predict small street maps, and all metrics count them. Each run of the
sweep takes the counts of each image from one of the networks, by chance. So the counts of a run fit
each other, and the true pixels are the same in all runs.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf

from gald.config import compose
from gald.evaluation.evaluate import build_metrics
from gald.inference import LabelMap
from gald.metrics.base import CountMetric
from gald.metrics.images import ImageCounts
from gald.run.provenance import sha256, versions
from gald.run.results import write_results
from gald.sweep.cells import Cell, declare
from gald.sweep.state import Record, write_record

SIZE = (48, 64)  # of the maps, in pixels
GAS = ("none", "psp", "cgnl", "nonlocal", "cc", "aspp", "gc", "se", "danet", "ocr")
LDS = ("none", "mask", "affinity", "gate", "guided", "carafe", "a", "b", "c", "d")


class Shape(NamedTuple):
    """Size of a sweep.

    Attributes:
        gas: number of GA modules.
        lds: number of LD modules.
        seeds: number of seeds of each arm.
        images: number of evaluated images.
        classes: number of classes.
    """

    gas: int
    lds: int
    seeds: int
    images: int
    classes: int

    @property
    def runs(self) -> int:
        """Number of cells."""
        return self.gas * self.lds * self.seeds


def write_sweep(folder: Path, shape: Shape, networks: int = 3) -> None:
    """Write a sweep in which every cell is done; all have all metrics of conf/metrics/all.yaml."""
    grid = list(itertools.product(GAS[: shape.gas], LDS[: shape.lds], range(shape.seeds)))
    words = [[f"model/ga={ga}", f"model/ld={ld}", f"seed={seed}"] for ga, ld, seed in grid]
    cells = declare(folder, "bench", ["gald", "train", "-m"], words)
    config: Any = compose("train", ["metrics=all", "data=synthetic", "output_dir=x"])
    metrics = build_metrics(config.metrics, shape.classes)
    counts = list(_count(metrics, shape, networks))
    stored: Any = OmegaConf.to_container(config, resolve=True)
    for cell, (ga, ld, seed) in zip(cells, grid, strict=True):
        place = folder / cell.folder
        place.mkdir()
        results = _write_run(place, cell, metrics, counts, shape)
        arm = GAS.index(ga), LDS.index(ld)
        results |= {"seed": seed, "cost/total/params": 1_000_000 + 10 * arm[0] + arm[1]}
        results |= {"cost/total/gmacs": 1 + 0.1 * arm[0] + 0.01 * arm[1], "seconds": 60.0}
        results["test/receipt"]["metrics"] = stored["metrics"]
        results["test/receipt"]["inference"] = stored["inference"]
        write_results(place / "results.json", results)
        stored["model"]["ga"], stored["model"]["ld"] = {"_target_": ga}, {"_target_": ld}
        stored |= {"seed": seed, "output_dir": str(place)}
        OmegaConf.save(OmegaConf.create(stored), place / "config.yaml")
        write_record(place, Record("done", None, 1, 60.0, None, results["test/miou"]))


def _write_run(
    place: Path,
    cell: Cell,
    metrics: list[CountMetric],
    counts: list[list[dict[str, torch.Tensor]]],
    shape: Shape,
) -> dict[str, Any]:
    rng = np.random.default_rng(cell.number)
    images, names = ImageCounts(), [f"class {index}" for index in range(shape.classes)]
    for index, (image, which) in enumerate(
        zip(counts, rng.integers(len(counts[0]), size=shape.images), strict=True)
    ):
        for name, vector in image[which].items():
            images.add(f"street_{index:05}", name, vector)
    images.save(place / "images_test.npz")
    scores: dict[str, Any] = {}
    for metric in metrics:
        scores |= metric.scores(torch.from_numpy(images.total(metric.name)), names)
    results = {f"test/{key}": value for key, value in scores.items()}
    hashes = {f"{key}_sha256": sha256(key) for key in ("images", "ground_truth", "classes")}
    receipt = {"split": "test", "images": shape.images, **hashes, "void": 255, **versions()}
    receipt |= {"commit": "abcdef123456", "predictions_sha256": sha256(cell.number)}
    return results | {"test/receipt": receipt}


def _count(
    metrics: list[CountMetric], shape: Shape, networks: int
) -> Iterator[list[dict[str, torch.Tensor]]]:
    """Yield the counts of one image after the other: of each network, by metric."""
    for index in range(shape.images):
        rng = np.random.default_rng([index, 1])
        mask = _street(rng, shape.classes)
        predictions = []
        for network in range(networks):
            labels = np.roll(mask, rng.integers(0, 3, 2), (0, 1))
            wrong = rng.random(mask.shape) < 0.02 * (1 + network)
            labels[wrong] = rng.choice(mask.ravel(), wrong.sum())
            confidence = np.where(labels == mask, 0.9, 0.5) + rng.uniform(-0.2, 0.1, mask.shape)
            prediction = LabelMap(
                torch.from_numpy(labels), torch.from_numpy(confidence.astype(np.float32))
            )
            truth = torch.from_numpy(mask)
            predictions.append({m.name: m.count(prediction, truth) for m in metrics})
        yield predictions


def _street(rng: np.random.Generator, classes: int) -> np.ndarray:
    """Draw a map (H, W) with rectangles of a dozen classes on a ground."""
    mask = np.full(SIZE, rng.integers(min(classes, 3)), np.uint8)
    for label in rng.choice(classes, min(classes, 12), replace=False):
        for _ in range(rng.integers(1, 4)):
            top, left = (int(rng.integers(side)) for side in SIZE)
            height, width = (int(rng.integers(1, side // 3)) for side in SIZE)
            mask[top : top + height, left : left + width] = label
    return mask
