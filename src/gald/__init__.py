"""GALD: global aggregation then local distribution, and every other context module, to ablate."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from gald.prediction.predictor import Predictor
    from gald.viz.record import Recording

__version__ = "0.1.0"

# Or albumentations asks for a newer version at its import, and waits where there is no network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(path: "str | Path") -> "Predictor":
    """A trained network, ready to use; see `gald.prediction.predictor.Predictor`.

    Args:
        path: a run folder, a checkpoint, a folder written by `save_pretrained` or `gald convert`,
            or OWNER/NAME on the hub.
    """
    from gald.prediction import predictor  # torch, which takes seconds, only when it is needed

    return predictor.load(path)


def record(model: "nn.Module", *slots: str) -> "AbstractContextManager[Recording]":
    """Maps of what GA and LD saw and made: `with gald.record(model) as maps: model(image)`.

    Args:
        model: what `load` returns, or a `Segmentor`.
        slots: of `ga` and `ld`; none means both. See `gald.viz.record`.
    """
    from gald.viz.record import record

    return record(model, *slots)
