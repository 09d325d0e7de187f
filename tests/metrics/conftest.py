"""Random predictions and masks, and where their classes meet."""

import numpy as np
import pytest


def draw(seed, void, k=4, shape=(37, 45)):
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


def find(labels):
    found = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(*labels.shape):
        near = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        edge = y in (0, labels.shape[0] - 1) or x in (0, labels.shape[1] - 1)
        known = labels[y, x] != 255
        found[y, x] = known and (edge or bool(((near != labels[y, x]) & (near != 255)).any()))
    return found


@pytest.fixture
def random_masks():
    """Called with a seed and whether there is void; gives labels and mask."""
    return draw


@pytest.fixture
def touching():
    """Marks the pixels that touch another class, or the edge, one by one."""
    return find
