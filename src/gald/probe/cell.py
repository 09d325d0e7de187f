"""One cell of a probe: train what follows the backbone, evaluate it, write the files of a run."""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from gald.device import reuse_memory
from gald.model.segmentor import Segmentor
from gald.model.truth import reads_truth, refuse_silent_leak
from gald.optimizer import build_optimizer
from gald.probe.batches import Batches, Truth
from gald.probe.bench import Bench, Material
from gald.probe.probe import Probe
from gald.probe.scoring import as_config, score
from gald.profiling.flops import count_params
from gald.run.atomic import atomic_file
from gald.run.building import build_own
from gald.run.checkpoint_io import save_checkpoint
from gald.run.plain import plain_data
from gald.run.provenance import commit, versions
from gald.run.results import Results, write_results

KEPT = ("data", "metrics", "probe")  # parts of a config that define the evaluation of a probe

Report = Callable[[int], None]  # called with the number of steps that are done


def run_cell(config: DictConfig, bench: Bench, folder: Path, report: Report) -> Results:
    """Train and evaluate one cell, and write its folder.

    The folder has `config.yaml`, `images_<split>.npz` and `results.json`, and with
    `probe.keep_networks` the whole network in `checkpoints/best.ckpt`. The same config and seed
    give the same numbers on the same machine, whichever cells ran before.

    Args:
        config: the resolved config, see conf/probe.yaml.
        bench: the features.
        folder: the run folder.
        report: called after every step.

    Raises:
        ValueError: two options do not fit each other, or the loss is not finite.
    """
    start = time.monotonic()
    material, probe = bench[config], build_own(config.probe)
    model = build_network(config, material).to(bench.device)
    batches = {
        split: Batches(features, probe, material.backbone.strides, truth_of(model), bench.device)
        for split, features in material.splits.items()
    }
    _train(config, probe, model, batches["train"], report)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with atomic_file(folder / "config.yaml") as partial:
        OmegaConf.save(config, partial, resolve=True)
    results: Results = {
        "params": count_params(model),
        "steps": probe.steps,
        "seed": config.seed,
        "device": str(bench.device),
        "precision": "32-true",
        "command": shlex.join(["gald", "probe", *sys.argv[1:]]),
        "commit": commit(),
        **versions(),
    }
    for split in list(batches)[1:]:
        about = {
            **{part: plain[part] for part in KEPT},
            "features": material.splits[split].folder.name,
            **{key: results[key] for key in ("device", "precision")},
        }
        names = material.data.class_names
        results |= score(config, model, batches[split], split, names, folder, about)
    if probe.keep_networks:
        _keep(folder, plain, model, material)
    results["seconds"] = round(time.monotonic() - start, 1)
    write_results(folder / "results.json", results)
    return results


def build_network(config: DictConfig, material: Material) -> Segmentor:
    """Build the network of a cell, with a stand-in for its backbone.

    Raises:
        ValueError: it reads the ground truth, and its options do not say that this is known.
    """
    torch.manual_seed(config.seed)
    behind: Any = OmegaConf.to_container(config.model, resolve=True)
    del behind["backbone"]
    classes = material.data.num_classes
    model: Segmentor = build_own(behind, backbone=material.backbone, num_classes=classes)
    refuse_silent_leak(model, other_images=True)
    return model


def truth_of(model: Segmentor) -> Truth:
    """Return the true boundaries that the LD of a network reads: of its own image, or another."""
    if not reads_truth(model):
        return None
    return "other" if getattr(model.ld, "other_image", False) else "own"


def _train(
    config: DictConfig, probe: Probe, model: Segmentor, batches: Batches, report: Report
) -> None:
    loss: nn.Module = build_own(config.loss).to(batches.device)
    optimizer = build_optimizer(model, build_own(config.optimizer), decay_norm_and_bias=False)
    scheduler = build_own(config.scheduler)(optimizer, probe.steps)
    model.train()
    for step, (epoch, batch) in enumerate(batches.of_training(config.seed)):
        # Seeds dropout by position, as in gald train, so that no cell depends on those before it.
        key = np.random.SeedSequence((config.seed, epoch, step))
        torch.manual_seed(int(key.generate_state(1)[0]))
        reuse_memory(batch.mask)
        parts = model.aggregate_maps(batch.maps, batch.truth)
        value = loss(model.finish(parts), batch.mask)
        if not value.isfinite():
            raise ValueError(
                f"the loss is {value.item()} at step {step + 1} of {probe.steps}; lower "
                f"optimizer.lr ({config.optimizer.lr})"
            )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        scheduler.step()
        report(step + 1)
    model.eval()


def _keep(folder: Path, config: dict[str, Any], model: Segmentor, material: Material) -> None:
    """Save the whole network, for images of the size of the probe."""
    parts = {"": model, "backbone.": material.whole}
    about = {
        "config": plain_data(config | {"inference": as_config(model)}, "the config of the cell"),
        "class_names": list(material.data.class_names),
        "palette": [list(colour) for colour in material.data.palette],
    }
    state = {
        f"model.{prefix}{key}": value.cpu()
        for prefix, part in parts.items()
        for key, value in part.state_dict().items()
    }
    save_checkpoint({"state_dict": state, "gald": about}, folder / "checkpoints" / "best.ckpt")
