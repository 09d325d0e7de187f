"""Exponential moving average of the weights."""

from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from typing_extensions import override

from gald.options.ranges import Fraction, Positive


class MovingAverage(WeightAveraging):
    """Callback that averages the weights; validation and checkpoints use the average.

    After the n-th update, n = 1, 2, ..., the average keeps the share
    min(decay, 1 - n ** -power) of itself, so that the average of a short run does not consist of
    untrained weights. The first update copies the weights. timm's `ModelEmaV3` warms up by the same
    formula. No update waits for the device.

    Args:
        decay: largest share that an update keeps, 0 to 1.
        power: speed of the warm-up; 2/3 reaches a decay of 0.999 after 31,600 steps, 0.9 after 31.
    """

    def __init__(self, decay: Fraction = 0.999, power: Positive = 2 / 3) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}, outside 0..1; choose for example 0.999")
        super().__init__()
        self.decay = decay
        self.power = power
        self._updates: int | None = None  # None: as many as the state on the device says

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._updates = None

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._updates = None

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if trainer.global_step > self._latest_update_step:
            self._update(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def _update(self, model: pl.LightningModule) -> None:
        averaged = self._average_model
        assert averaged is not None, "the training has begun"
        if self._updates is None:
            self._updates = int(averaged.n_averaged)
        number = self._updates + 1
        keep = 0.0 if number == 1 else min(self.decay, 1 - number**-self.power)
        pairs = zip(_tensors(averaged.module), _tensors(model), strict=True)
        floats: list[tuple[Tensor, Tensor]] = []
        for average, now in pairs:
            if number == 1:
                average.copy_(now)
            elif average.dtype == torch.float32:
                floats.append((average, now))
            else:  # counts of batch norm
                average.copy_(keep * average + (1 - keep) * now)
        if floats:
            averages, values = (list(side) for side in zip(*floats, strict=True))
            torch._foreach_mul_(averages, keep)
            torch._foreach_add_(averages, torch._foreach_mul(values, 1 - keep))
        averaged.n_averaged += 1
        self._updates = number


def _tensors(module: torch.nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
