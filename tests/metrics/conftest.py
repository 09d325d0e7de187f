"""Random predictions and masks, and a slow contour finder."""

import numpy as np
import pytest


def draw_masks(seed, void, k=4, shape=(37, 45)):
    generator = np.random.default_rng(seed)
    blocks = (
        generator.integers(0, k, (2, 8, 9)).repeat(5, 1).repeat(5, 2)[:, : shape[0], : shape[1]]
    )
    noise = generator.random(blocks.shape) < 0.03
    labels, mask = np.where(noise, generator.integers(0, k, blocks.shape), blocks).astype(np.uint8)
    labels = np.where(generator.random(shape) < 0.7, mask, labels)
    if void:
        mask[10:14, 3:30] = 255
        mask[generator.random(shape) < 0.02] = 255
    return labels, mask


def mark_contour(labels):
    marked = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(*labels.shape):
        near = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        edge = y in (0, labels.shape[0] - 1) or x in (0, labels.shape[1] - 1)
        known = labels[y, x] != 255
        marked[y, x] = known and (edge or bool(((near != labels[y, x]) & (near != 255)).any()))
    return marked


@pytest.fixture
def random_masks():
    """Return a function of a seed and a void flag that draws labels and mask."""
    return draw_masks


@pytest.fixture
def touching():
    """Return a function that marks, one by one, the pixels at another class or at the edge."""
    return mark_contour
