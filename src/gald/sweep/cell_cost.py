"""Estimate of the time and memory of one cell, from a few training steps on random pixels."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from gald.data.datamodule import SegmentationDataModule
from gald.device import pick_device
from gald.model.network import Network
from gald.optimizer import build_optimizer
from gald.profiling.flops import count_params
from gald.profiling.measure import CostMeter
from gald.profiling.network_cost import DTYPES
from gald.run.building import build, build_own, check, own_paths
from gald.run.old_names import renew_config
from gald.run.plain import plain_data, shown
from gald.run.text_file import parse_yaml
from gald.sweep.launch.devices import count_devices, visible_gpus

ROUNDS = 5  # timed passes; the median counts
PARTS = ("model", "loss", "optimizer", "task")  # what decides the cost, besides sizes


@dataclass(frozen=True)
class Workload:
    """Amount of work in a cell, apart from its network; None if it needs a missing dataset.

    Args:
        size: height and width of a training image.
        num_classes: number of classes of the dataset.
        micro_batch_size: images per device in one forward pass.
        accumulate: micro-batches per optimiser step.
        steps: optimiser steps of the whole training.
        evaluated: images that all validations together evaluate.
    """

    size: tuple[int, int]
    num_classes: int
    micro_batch_size: int
    accumulate: int
    steps: int | None
    evaluated: int | None


@dataclass(frozen=True)
class TrainingCost:
    """Cost of an architecture on this machine.

    Args:
        params: number of parameters.
        gmacs: multiply-adds for one image in evaluation, in billions.
        step_ms: milliseconds for one micro-batch, forward and backward.
        evaluation_ms: milliseconds for one image in evaluation.
        mib: peak memory of training in MiB: weights, optimiser state, activations and gradients.
    """

    params: int
    gmacs: float
    step_ms: float
    evaluation_ms: float
    mib: float

    def seconds(self, workload: Workload) -> float | None:
        """Return the time of a whole training with validations; None without the dataset."""
        if workload.steps is None or workload.evaluated is None:
            return None
        steps = workload.steps * workload.accumulate * self.step_ms
        return (steps + workload.evaluated * self.evaluation_ms) / 1000


def workload_of(config: DictConfig) -> Workload:
    """Compute the amount of work in a cell that the user composes.

    Raises:
        ValueError: the image size is unknown, because both crop size and dataset are missing.
    """
    data: SegmentationDataModule = build_own(config.data)
    processes = count_devices(config.trainer.devices, len(visible_gpus()))
    accumulate = data.plan_batches(processes)
    counts: list[int | None] = []
    size = getattr(data.train_transform, "crop_size", None)
    for split in ("train", "val"):
        try:
            dataset = data.make_dataset(split)
        except (OSError, ValueError):  # the dataset is not on this machine
            counts.append(None)
            continue
        counts.append(len(dataset))
        size = size or dataset[0]["image"].shape[-2:]
    if size is None:
        raise ValueError(
            "the size of the training images is unknown without the dataset; set "
            "data.train_transform.crop_size=[h,w]"
        )
    train, val = counts
    per_epoch = None if train is None else train // data.global_batch_size
    limit = config.trainer.get("max_steps") or -1
    steps = per_epoch and per_epoch * max(config.trainer.max_epochs or 0, 0)
    if limit > 0:
        steps = min(limit, steps) if steps else limit
    evaluated = None
    if val is not None and per_epoch and steps is not None:
        every = config.trainer.get("check_val_every_n_epoch") or 1
        evaluated = val * (steps // per_epoch // every + 1)
    micro = data.global_batch_size // processes // accumulate
    height, width = size
    return Workload((height, width), data.num_classes, micro, accumulate, steps, evaluated)


def architecture(config: DictConfig, workload: Workload) -> str:
    """Return a key of the architecture; cells with the same key have the same cost."""
    parts = {part: config[part] for part in PARTS}
    parts["task"] = OmegaConf.masked_copy(config.task, [k for k in config.task if k != "seed"])
    content = {name: OmegaConf.to_container(part, resolve=True) for name, part in parts.items()}
    sizes = [
        workload.size,
        workload.num_classes,
        workload.micro_batch_size,
        config.trainer.precision,
    ]
    return json.dumps([content, sizes], sort_keys=True)


def probe(config: DictConfig, workload: Workload) -> TrainingCost:
    """Build a cell's network with random weights and measure it on its training device."""
    parts = {"model": OmegaConf.to_container(config.model, resolve=True)}
    own = own_paths("model", parts["model"], "")  # weights change no cost, and may need a download
    model, meter = _place(
        lambda: build_own(own, num_classes=workload.num_classes),
        config.trainer.accelerator,
        config.trainer.precision,
    )
    loss = build_own(config.loss)
    optimizer = build_optimizer(
        model,
        build_own(config.optimizer),
        config.task.head_lr_factor,
        config.task.decay_norm_and_bias,
        config.task.get("layer_decay"),
    )
    image = _pixels(model, workload.micro_batch_size, workload.size, meter)
    mask = torch.randint(workload.num_classes, (len(image), *workload.size), device=meter.device)
    step = meter.measure(model.train(), partial(_loss, model, loss, mask), (image,), "train")
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = optimizer.state.values()
    tensors = [t for state in states for t in state.values() if torch.is_tensor(t)]
    evaluated = meter.measure(model.eval(), model.logits, (image[:1],), "eval")
    memory = step.mib + _weights_mib(model) + sum(map(_bytes, tensors)) / 2**20
    return TrainingCost(count_params(model), evaluated.gmacs, step.ms, evaluated.ms, memory)


def evaluation_costs(file: Path, trust: Sequence[str] = ()) -> dict[str, float]:
    """Measure milliseconds and peak memory (weights included, MiB) of one image in evaluation.

    The network is built from a cell's config with random weights. Its input is random pixels of
    the training size.

    Args:
        file: `config.yaml` of the cell; see `gald.run.building` for what it may decide.
        trust: packages with classes that it may name too.

    Raises:
        ValueError: the file misses a part, or is refused.
    """
    config = renew_config(plain_data(parse_yaml(file.read_bytes(), file), file))
    for part in ("data", "model"):
        if not isinstance(config, dict) or not isinstance(config.get(part), dict):
            raise ValueError(f"{file} has no {part}; copy the run again from its source")
    check("data", config["data"], file, trust)
    check("model", config["model"], file, trust)
    data: SegmentationDataModule = build("data", config["data"], file, trust)
    size = _training_size(config["data"], data, file)
    trainer, classes = config.get("trainer"), data.num_classes
    trainer = trainer if isinstance(trainer, dict) else {}
    model, meter = _place(
        lambda: build("model", config["model"], file, trust, num_classes=classes),
        trainer.get("accelerator"),
        trainer.get("precision"),
    )
    cost = meter.measure(model.eval(), model.logits, (_pixels(model, 1, size, meter),), "eval")
    return {"cost/total/ms": cost.ms, "cost/total/mib": cost.mib + _weights_mib(model)}


def _training_size(
    config: dict[str, Any], data: SegmentationDataModule, file: Path
) -> tuple[int, int]:
    transform = config.get("train_transform") or {}
    size = transform.get("crop_size") if isinstance(transform, dict) else None
    if size is None:
        size = data.make_dataset("val")[0]["image"].shape[-2:]
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    if not (is_pair and all(isinstance(side, int) and 0 < side < 2**15 for side in size)):
        raise ValueError(
            f"{file} has {shown(size)} as data.train_transform.crop_size, which is no height and "
            "width; copy the file again from its source"
        )
    height, width = size
    return height, width


def _place(
    make: Callable[[], Network], accelerator: Any, precision: Any
) -> tuple[Network, CostMeter]:
    torch.manual_seed(0)
    device = pick_device("cpu" if accelerator == "cpu" else "auto")
    dtype = DTYPES.get(precision) if isinstance(precision, str) else None
    return make().to(device), CostMeter(device, dtype, ROUNDS)


def _pixels(model: Network, images: int, size: tuple[int, int], meter: CostMeter) -> torch.Tensor:
    shape = (images, model.image_channels, *size)
    return torch.randint(256, shape, dtype=torch.uint8, device=meter.device)


def _weights_mib(model: Network) -> float:
    return sum(map(_bytes, [*model.parameters(), *model.buffers()])) / 2**20


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _loss(model: Network, loss: Any, mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return loss(model(image), mask)
