"""Connected regions of a label map, found from its runs: equal pixels side by side in a row.

A label map of 2048x1024 pixels has two million pixels and some ten thousand runs, so everything
after the search for their ends is quick. All classes are searched at once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gald.data.labels import VOID
from gald.metrics.base import Bytes

Marks = NDArray[np.bool_]
Places = NDArray[np.int64]


class Regions(NamedTuple):
    """The regions of a label map.

    Attributes:
        starts: first pixel of each run (R,), as an index into the flat map, in increasing order.
        region: the region of each run (R,), from 0.
        classes: class of each region (N,); every run of void pixels is a region of void.
        sizes: pixels of each region (N,).
    """

    starts: Places
    region: Places
    classes: Bytes
    sizes: Places


def run_starts(labels: Bytes) -> Marks:
    """Mark the pixels (H, W) that differ from their left neighbour, and the first of each row."""
    marked = np.empty(labels.shape, np.bool_)
    marked[:, :1] = True
    np.not_equal(labels[:, 1:], labels[:, :-1], out=marked[:, 1:])
    return marked


def find_regions(labels: Bytes, marked: Marks) -> Regions:
    """Find the connected regions (eight neighbours) of every class.

    Args:
        labels: train ids (H, W), 255 is void.
        marked: the starts of its runs, from `run_starts`.
    """
    from scipy.sparse import coo_array  # takes a third of a second to import
    from scipy.sparse.csgraph import connected_components

    starts = np.flatnonzero(marked)
    classes = labels.ravel()[starts]
    one, other = _touching(marked, starts)
    same = (classes[one] == classes[other]) & (classes[one] != VOID)
    pairs = one[same], other[same]
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), (len(starts), len(starts)))
    count, region = connected_components(graph, directed=False)
    of_region = np.empty(count, np.uint8)
    of_region[region] = classes
    # Sums in double precision are exact up to 2^53.
    sizes = np.bincount(region, np.diff(starts, append=labels.size), count).astype(np.int64)
    return Regions(starts, region, of_region, sizes)


def _touching(marked: Marks, starts: Places) -> tuple[Places, Places]:
    """Return all pairs of runs that touch in two successive rows, and maybe more than once.

    Where neither of two rows has a start, pixels touch as those to the left do, so it is enough to
    look at the starts of both: straight down, and along both diagonals across the start.
    """
    width = marked.shape[1]
    at = np.flatnonzero(marked[1:] | marked[:-1])
    inside = at % width > 0
    upper, lower = (np.searchsorted(starts, x, "right") - 1 for x in (at, at + width))
    flat = marked.ravel()
    # The run to the left is the one before where the pixel is a start, else the same.
    upper_left = (upper - flat[at])[inside]
    lower_left = (lower - flat[at + width])[inside]
    return (
        np.concatenate([upper, upper_left, upper[inside]]),
        np.concatenate([lower, lower[inside], lower_left]),
    )
