"""Callback for tests: freezes batch norm and dropout, and writes the loss of every batch."""

import json
import os
from pathlib import Path

import pytorch_lightning as pl
from torch import nn


class FrozenNorm(pl.Callback):
    """Keeps batch norm and dropout in eval mode, and writes the loss of every batch."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.losses: list[tuple[int, float]] = []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        for module in task.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
                module.eval()

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        step = (batch_idx // trainer.accumulate_grad_batches) + 1000 * trainer.current_epoch
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        self.losses.append((step, loss))

    def on_train_end(self, trainer, task):
        self.path.mkdir(parents=True, exist_ok=True)
        name = f"{trainer.global_rank}_{os.getpid()}.json"
        (self.path / name).write_text(json.dumps(self.losses))
