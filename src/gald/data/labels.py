"""Labels: from what a mask stores to the train ids that a network learns, and back."""

from collections.abc import Mapping

import numpy as np

VOID = 255
UNKNOWN = 254  # what a table gives for labels it does not know; no dataset has that many classes


def label_lut(label_map: Mapping[int, int]) -> np.ndarray:
    """Turn a map from stored labels to train ids into a lookup table for `cv2.LUT`.

    Shape:
        returns: (256,) uint8; `UNKNOWN` for every label that the map does not name
    """
    lut = np.full(256, UNKNOWN, np.uint8)
    lut[list(label_map)] = list(label_map.values())
    return lut


def stored_labels(label_map: Mapping[int, int]) -> np.ndarray:
    """Invert a label map: the table that turns predictions into a dataset's own labels.

    Of several labels with one train id the smallest is written. Train ids without a label give 0.

    Shape:
        returns: (256,) uint8
    """
    lut = np.zeros(256, np.uint8)
    for label, train_id in sorted(label_map.items(), reverse=True):
        if train_id != VOID:
            lut[train_id] = label
    return lut


def label_ranges(labels: Mapping[int, int]) -> str:
    """Word the labels of a map for a sentence, as `0..11` or `0, 7, 8`."""
    known = sorted(labels)
    if known == list(range(known[0], known[-1] + 1)):
        return f"{known[0]}..{known[-1]}"
    return ", ".join(map(str, known))
