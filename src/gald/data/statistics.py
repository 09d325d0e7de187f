"""Counts the pixels of each class."""

import cv2
import numpy as np

from gald.data.dataset import Scenes


def class_counts(scenes: Scenes, cache_dir: str) -> np.ndarray:
    """Count the pixels of each class in each scene.

    Shape:
        returns: (scenes, classes) int64
    """
    counts = np.zeros((len(scenes), 256), np.int64)
    for index in range(len(scenes)):
        _, labels, table = scenes.pixels(index)
        counts[index] = np.bincount(cv2.LUT(labels, table).ravel(), minlength=256)
    return counts[:, : len(scenes.class_names)]
