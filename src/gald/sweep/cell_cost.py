"""What one cell will take, measured in a few training steps on random pixels."""

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

ROUNDS = 5  # timed passes, of which the median counts
PARTS = ("model", "loss", "optimizer", "task")  # besides sizes, what time and memory depend on


@dataclass(frozen=True)
class Workload:
    """What a cell does, besides its network; None where only the dataset would tell.

    Args:
        size: height and width of a training image.
        num_classes: of the data.
        micro_batch_size: images that a device takes at once.
        accumulate: such batches of one optimiser step.
        steps: optimiser steps of the whole training.
        judged: images that the validations judge in all.
    """

    size: tuple[int, int]
    num_classes: int
    micro_batch_size: int
    accumulate: int
    steps: int | None
    evaluated: int | None


@dataclass(frozen=True)
class TrainingCost:
    """What an architecture takes on this machine.

    Args:
        params: numbers that it learns.
        gmacs: multiply-adds of one image in evaluation, in billions.
        step_ms: one micro-batch, forward and backward.
        judge_ms: one image in evaluation.
        mib: peak memory of training: weights, optimiser state, activations and gradients.
    """

    params: int
    gmacs: float
    step_ms: float
    evaluation_ms: float
    mib: float

    def seconds(self, workload: Workload) -> float | None:
        """Time of a whole training with its validations; None where the dataset is not there."""
        if workload.steps is None or workload.evaluated is None:
            return None
        steps = workload.steps * workload.accumulate * self.step_ms
        return (steps + workload.evaluated * self.evaluation_ms) / 1000


def workload_of(config: DictConfig) -> Workload:
    """How much a cell has to do.

    Raises:
        ValueError: nothing says how large the images are.
    """
    data: SegmentationDataModule = instantiate(config.data)
    processes = count_devices(config.trainer.devices, len(visible_gpus()))
    accumulate = data.plan_batches(processes)
    counts: list[int | None] = []
    size = getattr(data.train_transform, "crop_size", None)
    for split in ("train", "val"):
        try:
            scenes = data.make_dataset(split)
        except (OSError, ValueError):  # the dataset is not on this machine
            counts.append(None)
            continue
        counts.append(len(scenes))
        size = size or scenes[0]["image"].shape[-2:]
    if size is None:
        raise ValueError(
            "the size of the training images is unknown without the dataset; set "
            "data.train_transform.crop_size=[h,w]"
        )
    train, val = counts
    per_epoch = None if train is None else train // data.global_batch_size
    most = config.trainer.get("max_steps", -1)
    steps = most if most > 0 else per_epoch and per_epoch * (config.trainer.max_epochs or 0)
    evaluated = None
    if val is not None and per_epoch and steps is not None:
        every = config.trainer.get("check_val_every_n_epoch") or 1
        evaluated = val * (steps // per_epoch // every + 1)
    micro = data.global_batch_size // processes // accumulate
    height, width = size
    return Workload((height, width), data.num_classes, micro, accumulate, steps, evaluated)


def architecture(config: DictConfig, workload: Workload) -> str:
    """Cells of which this is the same cost the same."""
    parts = {part: config[part] for part in PARTS}
    parts["task"] = OmegaConf.masked_copy(config.task, [k for k in config.task if k != "seed"])
    said = {name: OmegaConf.to_container(part, resolve=True) for name, part in parts.items()}
    sizes = [
        workload.size,
        workload.num_classes,
        workload.micro_batch_size,
        config.trainer.precision,
    ]
    return json.dumps([said, sizes], sort_keys=True)


def probe(config: DictConfig, workload: Workload) -> TrainingCost:
    """Build a cell's network without its first weights, and measure it where it would train."""
    model, meter = _build(config, workload)
    loss = instantiate(config.loss)
    optimizer = build_optimizer(
        model,
        instantiate(config.optimizer),
        config.task.head_lr_factor,
        config.task.decay_norm_and_bias,
    )
    image = _pixels(workload.micro_batch_size, workload, meter)
    mask = torch.randint(workload.num_classes, (len(image), *workload.size), device=meter.device)
    step = meter.measure(model.train(), partial(_loss, model, loss, mask), (image,), "train")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = [t for of in optimizer.state.values() for t in of.values() if torch.is_tensor(t)]
    evaluated = meter.measure(model.eval(), model.logits, (image[:1],), "eval")
    memory = step.mib + _weights_mib(model) + sum(map(_bytes, state)) / 2**20
    return TrainingCost(count_params(model), evaluated.gmacs, step.ms, evaluated.ms, memory)


def evaluation_costs(config: DictConfig) -> dict[str, float]:
    """Milliseconds and peak memory (weights included, MiB) of one image in evaluation.

    Of a network of a cell's making with random weights, on random pixels of its training size.

    Args:
        config: of the cell; may come from a stranger, and builds classes of ours and torch.nn only.
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
        parts.model.backbone.weights = None  # they change no cost, and may need a download
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
