"""Compilation of the network for training."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from typing_extensions import override


class CompiledTraining(Callback):
    """Callback that trains with a compiled network; `trainer.compile=true` adds it.

    Weights, checkpoints and their keys stay those of the network. Validations and everything after
    the training run it uncompiled, because their images have many sizes, and each would be compiled
    anew; the crops of a training have one. The loss is not compiled.

    Raises:
        ValueError: this machine cannot compile for the device, or nothing is trained.
    """

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            raise ValueError(
                "trainer.compile=true has no effect on an evaluation, which runs the network "
                "uncompiled for images of any size; leave it out"
            )
        task: Any = pl_module
        device = trainer.strategy.root_device
        check_compiler(device)
        # The method, because a compiled module would be a second one with keys of its own.
        task.compiled = torch.compile(task.model.forward, dynamic=False)
        say = rank_zero_only(print)
        say(f"the first step compiles the network for {device.type}, which may take minutes")


def check_compiler(device: torch.device) -> None:
    """Refuse to compile for a device if a trial fails.

    Raises:
        ValueError: the compiler is missing, or does not support the device.
    """
    try:
        torch.compile(_trial)(torch.ones(8, device=device))
    except Exception as error:  # each part of the compiler has errors of its own
        cause = error.__cause__ or error
        reason = (" ".join(str(cause).split()) or "no reason given")[:200]
        tool = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler such as g++"
        raise ValueError(
            f"trainer.compile=true cannot compile for {device.type} here ({type(cause).__name__}: "
            f"{reason}); install {tool}, or set trainer.compile=false"
        ) from error


def _trial(x: Tensor) -> Tensor:
    return (x * 2 + 1).relu()
