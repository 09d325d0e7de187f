"""Finished sweeps on disk, written from simulated numbers: no network, no training."""

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.sweep.cells import Cell
from gald.sweep.state import Record, write_record

METRICS = {
    "boundary_f": {
        "_target_": "gald.metrics.boundary_f.BoundaryF",
        "_partial_": True,
        "widths": [3],
    },
    "boundary_iou": {
        "_target_": "gald.metrics.boundary_iou.BoundaryIoU",
        "_partial_": True,
        "widths": [0.02],
    },
    "size": {"_target_": "gald.metrics.size.ObjectSize", "_partial_": True},
}
COMMAND = ["gald", "train", "-m"]
CLASSES = ("road", "pole & sign", "sky")


def confusion(skill, images, seed, pixels=400):
    """Draw confusion matrices (N, K, K); the ground truth is equal for every skill and seed."""
    k = len(CLASSES)
    true = np.random.default_rng(99).multinomial(pixels, [0.6, 0.1, 0.3], size=images)
    rng = np.random.default_rng(seed)
    rates = np.full((k, k), (1 - skill) / (k - 1)) + np.eye(k) * (skill - (1 - skill) / (k - 1))
    return np.stack([[rng.multinomial(n, rates[c]) for c, n in enumerate(row)] for row in true])


def contours(skill, wobble):
    """Return counts of BoundaryF at one width; about `skill / 2` of the contour pixels match."""
    matched = round(500 * skill) + wobble
    return np.tile([1000, 1000, matched, matched], len(CLASSES))


def write_run(folder: Path, skill, seed, images=30, noise=0, costs=None, split="val", groups=None):
    folder.mkdir(parents=True, exist_ok=True)
    matrices = confusion(skill, images, 1000 * noise + seed)
    counts = ImageCounts()
    for index, matrix in enumerate(matrices):
        counts.add(f"street_{index:03}", "confusion", torch.from_numpy(matrix.ravel()))
        wobble = (7 * index + noise) % 5 - 2  # 0 in the mean over five images
        counts.add(f"street_{index:03}", "boundary_f", torch.from_numpy(contours(skill, wobble)))
    if groups is not None:
        counts.set_groups({name: groups(place) for place, name in enumerate(counts.names)})
    counts.save(folder / f"images_{split}.npz")
    total = ConfusionMatrix(len(CLASSES))
    scores = total.scores(torch.from_numpy(matrices.sum(0).ravel()), CLASSES)
    scores |= {"boundary_f/3": skill / 2, "boundary_f/3/road": 0.4, "boundary_iou/0.02": skill / 3}
    scores |= {"size/recall/to_0.01%": np.nan, "size/recall/to_0.1%": skill / 4}
    results = {f"{split}/{key}": None if v != v else v for key, v in scores.items()}
    results |= {"seed": seed, **(costs or {})}
    receipt = {
        "images_sha256": "1f",
        "ground_truth_sha256": "2e",
        "commit": "abc",
        "metrics": METRICS,
    }
    results[f"{split}/receipt"] = receipt
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def toy_sweep(tmp_path):
    """Writes a sweep of GA x LD x seeds; `skill(ga, ld, seed)` is the skill of each run."""

    def make(
        skill=lambda ga, ld, seed: 0.7,
        ga=("none", "psp"),
        ld=("none", "mask"),
        seeds=(0, 1, 2),
        images=30,
        name="toy",
        unfinished=None,
        config=None,
        primary=None,
        groups=None,
        split="val",
    ):
        folder = tmp_path / name
        grid = list(product(ga, ld, seeds))
        words = [(f"model/ga={g}", f"model/ld={d}", f"seed={seed}") for g, d, seed in grid]
        cells = [Cell(index, f"cell_{index}", overrides) for index, overrides in enumerate(words)]
        folder.mkdir()
        header = {"version": 2, "name": name, "command": COMMAND}
        header |= {"primary": primary} if primary else {}
        lines = [header, *map(asdict, cells)]
        (folder / "cells.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        for cell, (g, d, seed) in zip(cells, grid, strict=True):
            index = cell.number
            record = Record("done", attempts=1, seconds=60.0)
            if unfinished and (g, d, seed) in unfinished:
                record.state, record.reason = unfinished[g, d, seed]
            else:
                costs = {
                    "cost/total/params": 1_000_000 * (1 + ga.index(g)) + ld.index(d),
                    "cost/total/gmacs": 1.5 + ga.index(g) + 0.5 * ld.index(d),
                }
                place, amount = folder / cell.folder, skill(g, d, seed)
                write_run(place, amount, seed, images, index, costs, split, groups)
                content = {
                    "name": name,
                    "output_dir": str(folder / cell.folder),
                    "seed": seed,
                    "model": {"ga": {"_target_": f"gald.{g}"}, "ld": {"_target_": f"gald.{d}"}},
                    "data": {"global_batch_size": 8, "seed": seed, "num_workers": index},
                    "scheduler": {"power": 0.9},
                    "callbacks": {"checkpoint": {"dirpath": f"{folder / cell.folder}/checkpoints"}},
                }
                if config:
                    config(content, g, d, seed)
                OmegaConf.save(OmegaConf.create(content), folder / cell.folder / "config.yaml")
            (folder / cell.folder).mkdir(exist_ok=True)
            write_record(folder / cell.folder, record)
        return folder

    return make
