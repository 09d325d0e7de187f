"""GALD: global aggregation, then local distribution, with all context modules for ablations."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import nn

    from gald.prediction.predictor import Predictor
    from gald.viz.record import Recording

__version__ = "0.1.0"

# Otherwise albumentations looks for a newer version when imported, and hangs without a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(path: "str | Path", trust: "str | Sequence[str]" = ()) -> "Predictor":
    """Load a trained network; see `gald.prediction.predictor.Predictor`.

    Args:
        path: a run folder, a checkpoint, a folder written by `save_pretrained` or `gald convert`,
            or OWNER/NAME on the hub.
        trust: packages of your own with classes that the file may name. Without it the file decides
            nothing about what code runs.
    """
    from gald.prediction import predictor  # imports torch, which takes seconds

    return predictor.load(path, trust)


def record(model: "nn.Module", *slots: str) -> "AbstractContextManager[Recording]":
    """Record inputs and outputs of GA and LD: `with gald.record(model) as maps: model(image)`.

    Args:
        model: a network from `load`, or a `Segmentor`.
        slots: `ga`, `ld` or both; none means both. See `gald.viz.record`.
    """
    from gald.viz.record import record

    return record(model, *slots)
