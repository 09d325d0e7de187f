"""Lightning module for evaluation; its evaluator keeps the scores."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from typing_extensions import override

from gald.evaluation.evaluator import Evaluator
from gald.inference import Inference
from gald.model.network import Network
from gald.model.truth import refuse_silent_leak, shown_to

Batch = dict[str, Any]


class EvaluationTask(pl.LightningModule):
    """Evaluation of a network in Lightning's validation and test loops.

    Args:
        model: the network.
        inference: how the network predicts label maps.
        evaluator: counts the predictions and keeps the scores.
        class_names: names of the K classes.

    Raises:
        ValueError: the network reads the ground truth, and its options do not say that this is
            known.
    """

    def __init__(
        self,
        model: Network,
        inference: Inference,
        evaluator: Evaluator,
        class_names: Sequence[str],
    ) -> None:
        super().__init__()
        refuse_silent_leak(model)
        self.model = model
        self.inference = inference
        self.evaluator = evaluator
        self.class_names = tuple(class_names)

    def forward(self, image: Tensor) -> Tensor:
        """Compute class scores (B, K, H, W) at the size of the image."""
        return self.inference(self.model, image)

    @override
    def validation_step(self, batch: list[Batch], batch_idx: int) -> None:
        for part in batch:  # one part per image size
            confidence = self.evaluator.needs_confidence
            image = shown_to(self.model, part["image"], part["mask"])
            prediction = self.inference.predict(self.model, image, confidence)
            self.evaluator.update(prediction, part["mask"], part["name"])

    @override
    def test_step(self, batch: list[Batch], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        self.evaluator.compute(self.class_names)

    @override
    def on_test_epoch_end(self) -> None:
        self.evaluator.compute(self.class_names)
