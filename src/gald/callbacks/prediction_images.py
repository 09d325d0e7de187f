"""Predictions for fixed validation images, logged to wandb after every epoch."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from gald.errors import to_sentence
from gald.model.truth import shown_to
from gald.options.ranges import Count
from gald.painting import colourise


class PredictionImages(Callback):
    """Callback that logs fixed validation images with ground truth and prediction to wandb.

    It does nothing if the run does not log to wandb. wandb chooses its own class colours, so each
    image is logged twice: with masks that can be switched on and off by class name, and painted in
    the palette of the dataset.

    Args:
        count: number of images to log; they are the first ones of the validation split.
        every_n_epochs: number of epochs from one log to the next.
    """

    def __init__(self, count: Count = 4, every_n_epochs: Count = 1) -> None:
        self.count = count
        self.every_n_epochs = every_n_epochs
        self.failed = False

    @rank_zero_only
    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        logger = next((x for x in trainer.loggers if isinstance(x, WandbLogger)), None)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if logger is None or not fitting or trainer.current_epoch % self.every_n_epochs:
            return
        predicted = self._predict(trainer, task)
        try:
            self._log(logger, trainer, predicted)
        except Exception as error:  # wandb keeps files in TMPDIR until they are sent
            if not self.failed:
                self.failed = True
                rank_zero_warn(f"the images of an epoch are not logged: {to_sentence(error)}")

    def _predict(self, trainer: pl.Trainer, task: Any) -> list[tuple[dict[str, Any], Tensor]]:
        """Return the images, as the dataset has them, and their predictions (H, W)."""
        predicted = []
        dataset = trainer.datamodule.val_dataset  # ty: ignore[missing-attribute]
        for index in range(min(self.count, len(dataset))):
            item = dataset[index]
            # No collectives here: only the first process runs this method.
            image, mask = (item[key][None].to(task.device) for key in ("image", "mask"))
            with torch.no_grad():
                labels = task(shown_to(task.model, image, mask)).argmax(1)[0]
            predicted.append((item, labels.to(torch.uint8)))
        return predicted

    def _log(
        self,
        logger: WandbLogger,
        trainer: pl.Trainer,
        predicted: list[tuple[dict[str, Any], Tensor]],
    ) -> None:
        import wandb

        data = trainer.datamodule  # ty: ignore[missing-attribute]
        labels = dict(enumerate(data.class_names)) | {255: "void"}
        masked, painted = [], []
        for item, prediction in predicted:
            layers = {"ground_truth": item["mask"], "prediction": prediction}
            image = item["image"].permute(1, 2, 0).numpy()
            masks = {
                name: {"mask_data": layer.cpu().numpy(), "class_labels": labels}
                for name, layer in layers.items()
            }
            masked.append(wandb.Image(image, masks=masks, caption=item["name"]))
            stack = [
                image,
                *(colourise(layer.cpu().numpy(), data.palette) for layer in layers.values()),
            ]
            caption = f"{item['name']}: image, ground truth, prediction"
            painted.append(wandb.Image(np.concatenate(stack, axis=1), caption=caption))
        # wandb plots against this key instead of its own call counter.
        logger.experiment.log(
            {
                "val/masks": masked,
                "val/panels": painted,
                "trainer/global_step": trainer.global_step,
            }
        )
