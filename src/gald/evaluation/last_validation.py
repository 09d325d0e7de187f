"""The last validation of a training, counted by all metrics: it may be the final evaluation."""

import hashlib

import pytorch_lightning as pl
from torch import Tensor, nn

from gald.evaluation.evaluator import Evaluator
from gald.inference import LabelMap
from gald.metrics.base import CountMetric
from gald.run.provenance import digest_tensors


class LastValidation:
    """Counts of the last validation, with a hash of the weights that were validated.

    A training ends with an evaluation of its best checkpoint. If that has the weights of the last
    validation, which only the hash can tell (a callback may validate averaged weights), the images
    need not be predicted again.

    A metric that fails here ends no training: the counts are dropped, and the final evaluation
    meets the same error after the training is saved.

    Args:
        metrics: the metrics of the final evaluation.
    """

    def __init__(self, metrics: list[CountMetric]) -> None:
        self.evaluator: Evaluator | None = Evaluator(metrics, per_image=True)
        self.needs_confidence = self.evaluator.needs_confidence
        self._weights: str | None = None

    def update(
        self, model: nn.Module, prediction: LabelMap, mask: Tensor, names: list[str]
    ) -> None:
        """Count a batch, and at the first one note the weights of the network."""
        if self._weights is None:
            self._weights = hash_weights(model)
        if self.evaluator is not None:
            try:
                self.evaluator.update(prediction, mask, names)
            except Exception:
                self.stop()

    def stop(self) -> None:
        """Drop the counts."""
        if self.evaluator is not None:
            self.evaluator.stop()
            self.evaluator = None

    def compute(self, class_names: tuple[str, ...], trainer: pl.Trainer) -> None:
        """Score the images of all processes, which all must call it."""
        if self.evaluator is not None:
            try:
                self.evaluator.finish()
            except Exception:
                self.stop()
        if not trainer.strategy.reduce_boolean_decision(self.evaluator is not None):
            self.stop()
        if self.evaluator is not None:
            try:
                self.evaluator.compute(class_names)
            except Exception:  # all processes have the same counts, and meet it together
                self.stop()

    def of(self, model: nn.Module, trainer: pl.Trainer) -> Evaluator | None:
        """Return the counts if they are of these weights, else None; all processes must call it."""
        # The first process has the first image; another one may have none and so no hash.
        same = trainer.strategy.broadcast(self._weights == hash_weights(model))
        return self.evaluator if same else None


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 of the weights and buffers of a network."""
    digest = hashlib.sha256()
    digest_tensors(digest, model.state_dict())
    return digest.hexdigest()
