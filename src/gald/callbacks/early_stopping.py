"""End of a training that does not improve."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override


class EarlyStopping(callbacks.EarlyStopping):
    """Callback that ends a training when its score has not improved for some validations.

    Unlike Lightning's own, a training that it has ended stays ended when it is resumed, for example
    to repeat an evaluation that was interrupted; and a resumed run has the patience of its command.
    """

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        reason = self.stopping_reason
        patient = self.wait_count < self.patience
        if reason == EarlyStoppingReason.NOT_STOPPED or (
            reason == EarlyStoppingReason.PATIENCE_EXHAUSTED and patient
        ):
            return
        trainer.should_stop = True
        rank_zero_only(print)("early_stopping has ended this training; it only evaluates")
