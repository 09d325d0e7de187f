"""Callbacks for cells: one that makes a cell of two processes fail, one that waits for others."""

import os
import time
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback


class Fault(Callback):
    def __init__(self, kind):
        self.kind = kind

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != 1:
            return
        if self.kind == "crash" and trainer.global_rank == 1:
            raise RuntimeError("the second process crashed")
        if self.kind == "hang" and trainer.global_rank == 1:
            time.sleep(3600)  # the first process waits for it in the next collective operation
        if self.kind == "memory" and len(batch["image"]) > 1:
            torch.empty(1 << 55, dtype=torch.uint8)
        if self.kind == "killed" and trainer.global_rank == 0 and trainer.current_epoch == 0:
            os.abort()


class Rendezvous(Callback):
    """Writes which GPUs a cell may use, and waits until as many cells as `cells` have done so."""

    def __init__(self, folder, cells):
        self.folder, self.cells = Path(folder), cells

    def on_train_start(self, trainer, pl_module):
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        deadline = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < self.cells and time.monotonic() < deadline:
            time.sleep(0.1)
