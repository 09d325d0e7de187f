"""The same validation scenes after every epoch, as wandb images."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from gald.painting import colourise


class PredictionImages(Callback):
    """Logs fixed validation scenes with ground truth and prediction to wandb, if a run logs there.

    wandb colours classes as it likes, so each scene is logged twice: with masks that one can
    switch on and off by class name, and painted in the dataset's own palette.

    Args:
        count: how many of the first validation scenes to show.
        every_n_epochs: validations between two showings.
    """

    def __init__(self, count: int = 4, every_n_epochs: int = 1) -> None:
        self.count = count
        self.every_n_epochs = every_n_epochs

    @rank_zero_only
    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        logger = next((x for x in trainer.loggers if isinstance(x, WandbLogger)), None)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if logger is None or not fitting or trainer.current_epoch % self.every_n_epochs:
            return
        import wandb

        data = trainer.datamodule  # ty: ignore[missing-attribute]
        labels = dict(enumerate(data.class_names)) | {255: "void"}
        masked, painted = [], []
        for index in range(min(self.count, len(data.val_dataset))):
            item = data.val_dataset[index]
            # Straight to the model, without any collective: only this process is here.
            with torch.no_grad():
                guess = task(item["image"][None].to(task.device)).argmax(1)[0]
            layers = {"ground_truth": item["mask"], "prediction": guess.to(torch.uint8)}
            picture = item["image"].permute(1, 2, 0).numpy()
            masks = {
                name: {"mask_data": layer.cpu().numpy(), "class_labels": labels}
                for name, layer in layers.items()
            }
            masked.append(wandb.Image(picture, masks=masks, caption=item["name"]))
            stack = [
                picture,
                *(colourise(layer.cpu().numpy(), data.palette) for layer in layers.values()),
            ]
            caption = f"{item['name']}: image, ground truth, prediction"
            painted.append(wandb.Image(np.concatenate(stack, axis=1), caption=caption))
        # wandb plots against this key, not against its own count of calls.
        logger.experiment.log(
            {
                "val/masks": masked,
                "val/panels": painted,
                "trainer/global_step": trainer.global_step,
            }
        )
