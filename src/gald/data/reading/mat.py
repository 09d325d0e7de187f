"""Reading of label maps from MATLAB files."""

import io
import math
from pathlib import Path

import numpy as np

from gald.data.reading.files import read_bytes
from gald.data.reading.image import refuse_large
from gald.data.reading.sample_error import SampleError


def read_mat(path: Path, key: str, largest: int) -> np.ndarray:
    """Read a label map of integers from 0 to `largest`, also inside of a zip.

    Shape:
        returns: (H, W) uint16
    """
    from scipy.io import loadmat, whosmat  # only for these files

    data = read_bytes(path)
    try:
        shapes = {name: shape for name, shape, _ in whosmat(io.BytesIO(data))}
        refuse_large((shapes[key][0], math.prod(shapes[key][1:])), f"mask {path}")
        stored = loadmat(io.BytesIO(data), variable_names=[key])[key]
        labels = stored.astype(np.uint16, order="C")
        low, high = stored.min(), stored.max()
    except SampleError:
        raise
    except Exception as error:  # SciPy has no exception of its own for damaged files
        raise SampleError(
            f"mask {path} has no readable key {key} ({type(error).__name__}); copy or download it "
            "again"
        ) from None
    if labels.ndim != 2 or low < 0 or high > largest or (labels != stored).any():
        raise SampleError(
            f"mask {path} has a key {key} of shape {labels.shape} with values {low}..{high}, "
            f"not (H, W) with integers 0..{largest}; copy or download it again"
        )
    return labels
