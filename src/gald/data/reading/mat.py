"""Reads a label map from a MATLAB file."""

import io
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from gald.data.reading.files import SampleError, read_bytes


def read_mat(path: Path, key: str, largest: int) -> np.ndarray:
    """Read a label map of whole numbers from 0 to `largest`, also from within a zip.

    Shape:
        returns: (H, W) uint16
    """
    data = read_bytes(path)
    try:
        stored = loadmat(io.BytesIO(data), variable_names=[key])[key]
        labels = stored.astype(np.uint16, order="C")
        low, high = stored.min(), stored.max()
    except Exception as error:  # what SciPy raises on a damaged file is whatever fails first
        raise SampleError(
            f"mask {path} has no {key} that can be read ({type(error).__name__}); copy the file "
            "again"
        ) from None
    if labels.ndim != 2 or low < 0 or high > largest or (labels != stored).any():
        raise SampleError(
            f"mask {path} has a {key} of shape {labels.shape} with values from {low} to {high}, "
            f"not (H, W) with whole numbers 0..{largest}; copy the file again"
        )
    return labels
