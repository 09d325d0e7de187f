"""Label maps: from stored labels to train ids, and back."""

from collections.abc import Mapping

import numpy as np

VOID = 255
UNKNOWN = 254  # value in a lookup table for unknown labels; no dataset has that many classes


def label_lut(label_map: Mapping[int, int]) -> np.ndarray:
    """Convert a label map into a lookup table for `cv2.LUT`.

    Shape:
        returns: (256,) uint8; `UNKNOWN` for every label that is not in the map
    """
    lut = np.full(256, UNKNOWN, np.uint8)
    lut[list(label_map)] = list(label_map.values())
    return lut


def stored_labels(label_map: Mapping[int, int]) -> np.ndarray:
    """Invert a label map into a lookup table from train ids to stored labels.

    If several labels have the same train id, the table has the smallest. Train ids without a label
    become 0.

    Shape:
        returns: (256,) uint8
    """
    lut = np.zeros(256, np.uint8)
    for label, train_id in sorted(label_map.items(), reverse=True):
        if train_id != VOID:
            lut[train_id] = label
    return lut


def label_ranges(labels: Mapping[int, int]) -> str:
    """Format the labels of a map for a message, as `0..11` or `0, 7, 8`."""
    ordered = sorted(labels)
    if ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}..{ordered[-1]}"
    return ", ".join(map(str, ordered))
