"""Callback that kills the second process of the first attempt of torchrun."""

import os

from pytorch_lightning.callbacks import Callback


class KilledOnce(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and trainer.global_step == 5 and trainer.global_rank == 1:
            os.abort()
