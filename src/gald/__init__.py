"""GALD: global aggregation then local distribution, and every other context module, to ablate."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gald.models.segmentor import Segmentor

__version__ = "0.1.0"

# Or albumentations asks for a newer version at its import, and waits where there is no network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(path: "str | Path") -> "Segmentor":
    """The trained network of a run, ready to predict; see `gald.checkpoint.load`."""
    from gald import checkpoint  # torch takes seconds to import; `gald --help` does not need it

    return checkpoint.load(path)
