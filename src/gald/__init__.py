"""GALD: global aggregation then local distribution, and every other context module, to ablate."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gald.models.segmentor import Segmentor

__version__ = "0.1.0"


def load(path: "str | Path") -> "Segmentor":
    """The trained network of a run, ready to predict; see `gald.checkpoint.load`."""
    from gald import checkpoint  # torch takes seconds to import; `gald --help` does not need it

    return checkpoint.load(path)
