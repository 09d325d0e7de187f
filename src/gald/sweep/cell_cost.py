"""Estimate of the time and memory of one cell, from a few training steps on random pixels."""

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gald.data.datamodule import SegmentationDataModule
from gald.device import pick_device
from gald.model.segmentor import Segmentor
from gald.optimizer import build_optimizer
from gald.profiling.command import DTYPES
from gald.profiling.flops import count_params
from gald.profiling.measure import CostMeter
from gald.run.safe_targets import check_targets
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
    """Compute the amount of work in a cell.

    Raises:
        ValueError: the image size is unknown, because both crop size and dataset are missing.
    """
    data: SegmentationDataModule = instantiate(config.data)
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
    limit = config.trainer.get("max_steps", -1)
    steps = limit if limit > 0 else per_epoch and per_epoch * (config.trainer.max_epochs or 0)
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
    model, meter = _build(config, workload)
    loss = instantiate(config.loss)
    optimizer = build_optimizer(
        model,
        instantiate(config.optimizer),
        config.task.head_lr_factor,
        config.task.decay_norm_and_bias,
        config.task.get("layer_decay"),
    )
    image = _pixels(workload.micro_batch_size, workload, meter)
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


def evaluation_costs(config: DictConfig) -> dict[str, float]:
    """Measure milliseconds and peak memory (weights included, MiB) of one image in evaluation.

    The network is built from a cell's config with random weights. Its input is random pixels of
    the training size.

    Args:
        config: of the cell. It may be untrusted: only classes of gald and torch.nn are built.
    """
    for part in (config.data, config.model):
        check_targets(OmegaConf.to_container(part, resolve=True))
    workload = workload_of(config)
    model, meter = _build(config, workload)
    cost = meter.measure(model.eval(), model.logits, (_pixels(1, workload, meter),), "eval")
    return {"cost/total/ms": cost.ms, "cost/total/mib": cost.mib + _weights_mib(model)}


def _build(config: DictConfig, workload: Workload) -> tuple[Segmentor, CostMeter]:
    torch.manual_seed(0)
    device = pick_device("cpu" if config.trainer.accelerator == "cpu" else "auto")
    parts = OmegaConf.create({"model": OmegaConf.to_container(config.model, resolve=True)})
    if "weights" in parts.model.backbone:
        parts.model.backbone.weights = None  # weights change no cost, and may need a download
    model: Segmentor = instantiate(parts.model, num_classes=workload.num_classes).to(device)
    return model, CostMeter(device, DTYPES.get(config.trainer.precision), ROUNDS)


def _pixels(images: int, workload: Workload, meter: CostMeter) -> torch.Tensor:
    shape = (images, 3, *workload.size)
    return torch.randint(256, shape, dtype=torch.uint8, device=meter.device)


def _weights_mib(model: Segmentor) -> float:
    return sum(map(_bytes, [*model.parameters(), *model.buffers()])) / 2**20


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _loss(model: Segmentor, loss: Any, mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return loss(model(image), mask)
