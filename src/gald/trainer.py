"""Lightning's trainer, with checks of the options for several devices."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import CUDAAccelerator
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers import convert_sync_batchnorm
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from typing_extensions import override

from gald.options.values import show
from gald.run.checkpoint_io import AtomicCheckpointIO
from gald.run.compiled import CompiledTraining

PRECISIONS = ("32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16")
STRATEGY = re.compile(r"auto|ddp|ddp_find_unused_parameters_(true|false)")
NOT_NULL = ("max_steps", "fast_dev_run", "overfit_batches")  # null is their default
TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # the default name of a run folder


class SyncBatchNorm(TorchSyncBatchNorm):
    """Plugin that synchronises batch norm between processes, as timm does.

    torch's own conversion drops the activation of timm's `BatchNormAct2d`, which EfficientNet and
    others consist of: such a network would train and evaluate without its non-linearities.
    """

    @override
    def apply(self, model: nn.Module) -> nn.Module:
        return convert_sync_batchnorm(model)

    @override
    def revert(self, model: Any) -> nn.Module:
        reverted = super().revert(model)
        if not isinstance(model, SyncBatchNormAct):
            return reverted
        norm: Any = BatchNormAct2d(
            model.num_features, model.eps, model.momentum, model.affine, model.track_running_stats
        )
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(norm, name, getattr(model, name))
        norm.act, norm.drop = model.act, model.drop
        return norm.train(model.training)


def build_trainer(compile: bool = False, **options: Any) -> pl.Trainer:
    """Build a trainer from options of `pytorch_lightning.Trainer`.

    Args:
        compile: whether to train with a compiled network, see `CompiledTraining`.
        options: those of Lightning.

    Raises:
        ValueError: an option would not do what it says, batch norm would be synchronised between
            processes on the CPU, the machine has no such devices, or each process of torchrun or
            srun would create its own run folder.
    """
    options = {k: v for k, v in options.items() if v is not None or k not in NOT_NULL}
    _check_options(options)
    _check_run_folder_is_shared(options.get("default_root_dir"))
    options["plugins"] = [*(options.get("plugins") or ()), AtomicCheckpointIO()]
    if compile:
        options["callbacks"] = [*(options.get("callbacks") or ()), CompiledTraining()]
    if options.get("sync_batchnorm"):
        options["plugins"].append(SyncBatchNorm())
    try:
        trainer = pl.Trainer(**options)
    except MisconfigurationException as error:
        raise ValueError(
            f"trainer.accelerator={options.get('accelerator')} with "
            f"trainer.devices={options.get('devices')} does not fit this machine "
            f"({' '.join(str(error).split())}); trainer=default uses an available device"
        ) from error
    # Under max_steps Lightning goes on with an epoch that is finished: a resumed run would count a
    # step twice in its curves, and the last epoch never.
    vars(trainer.fit_loop)["_iteration_based_training"] = lambda: False
    on_gpu = isinstance(trainer.accelerator, CUDAAccelerator)
    if options.get("sync_batchnorm") and trainer.world_size > 1 and not on_gpu:
        raise ValueError(
            f"batch norm cannot be synchronised between {trainer.world_size} processes on the CPU; "
            "add trainer.sync_batchnorm=false, or use GPUs"
        )
    return trainer


def check_accumulation(options: Mapping[str, Any], accumulated: int) -> None:
    """Refuse options of Lightning that count micro-batches where a step has several.

    Args:
        options: the options of the trainer.
        accumulated: micro-batches of a device per optimizer step.

    Raises:
        ValueError: such an option is set.
    """
    for name in ("val_check_interval", "limit_train_batches", "overfit_batches"):
        value = options.get(name)
        if value and value != 1.0 and accumulated > 1:
            raise ValueError(
                f"trainer.{name}={value} counts micro-batches, but an optimizer step has "
                f"{accumulated} of them; add data.micro_batch_size=null"
            )


def _check_options(options: Mapping[str, Any]) -> None:
    accumulated = options.get("accumulate_grad_batches")
    if accumulated not in (None, 1):
        raise ValueError(
            f"trainer.accumulate_grad_batches={accumulated} follows from the batch sizes; remove "
            "it, and set data.global_batch_size and data.micro_batch_size"
        )
    epochs, steps = options.get("max_epochs", 1), options.get("max_steps", -1)
    endless = epochs in (None, -1) and steps in (None, -1)  # Lightning takes null for 1000
    if endless or steps == 0 or (epochs is not None and epochs != -1 and epochs < 1):
        key, value = ("max_steps", steps) if steps == 0 else ("max_epochs", epochs)
        raise ValueError(
            f"trainer.{key}={show(value)} gives the learning-rate schedule no length; set "
            "trainer.max_epochs or trainer.max_steps to 1 or more"
        )
    if options.get("limit_train_batches") == 0:
        raise ValueError(
            "trainer.limit_train_batches=0 leaves nothing to train; set it to 1 or more, or to "
            "null for all"
        )
    precision = options.get("precision", "32-true")
    if str(precision) not in PRECISIONS:
        raise ValueError(
            f"trainer.precision={precision} is not supported; choose 32-true, 16-mixed or "
            "bf16-mixed, which keep the weights in 32 bits"
        )
    strategy = options.get("strategy", "auto")
    if isinstance(strategy, str) and not STRATEGY.fullmatch(strategy):
        raise ValueError(
            f"trainer.strategy={strategy} is not supported; choose auto for one device, or ddp"
        )


def _check_run_folder_is_shared(folder: str | os.PathLike[str] | None) -> None:
    count = max(int(os.environ.get(key, 1)) for key in ("WORLD_SIZE", "SLURM_NTASKS"))
    # Processes that Lightning or our launcher starts are given the folder.
    started_outside = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
    named_by_time = folder is not None and TIME.fullmatch(Path(folder).name)
    if started_outside and count > 1 and named_by_time and "GALD_RUN_ID" not in os.environ:
        raise ValueError(
            f"each of {count} processes would create its own run folder; start them with the "
            "variable GALD_RUN_ID=NAME, or add output_dir=FOLDER"
        )
