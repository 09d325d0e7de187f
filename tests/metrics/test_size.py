import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from gald.inference import LabelMap
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.size import ObjectSize


def table_of(metric, labels, mask):
    counts = metric.count(LabelMap(torch.from_numpy(labels), None), torch.from_numpy(mask))
    return counts.view(4, metric.num_classes, -1)


def by_objects(metric, labels, mask):
    """Count object by object, with objects found by SciPy."""
    labels = np.where(mask == 255, 255, labels)
    table = np.zeros((4, metric.num_classes, len(metric.edges) + 1), int)
    for index in range(metric.num_classes):
        for source, rows in ((mask, (0, 1, 3)), (labels, (2,))):
            components, count = ndimage.label(source == index, np.ones((3, 3)))
            for component in range(1, count + 1):
                inside = components == component
                column = sum(inside.sum() > edge * mask.size for edge in metric.edges)
                values = {0: (labels[inside] == index).sum(), 1: inside.sum(), 3: 1}
                values[2] = (mask[inside] != index).sum()
                for row in rows:
                    table[row, index, column] += values[row]
    return table


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_those_counted_object_by_object(seed, random_masks):
    labels, mask = random_masks(seed, void=True)
    metric = ObjectSize(4, edges=(0.002, 0.02, 0.1))
    assert table_of(metric, labels, mask).tolist() == by_objects(metric, labels, mask).tolist()


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_exact_for_any_shape_and_pattern(seed):
    generator = np.random.default_rng(seed)
    shape = [(1, 40), (40, 1), (1, 1), (23, 31)][seed % 4]
    block = 1 + seed % 3  # blocks of 1 pixel touch only at corners, here and there
    small = generator.integers(0, 3, (2, -(-shape[0] // block), -(-shape[1] // block)))
    big = small.repeat(block, 1).repeat(block, 2)[:, : shape[0], : shape[1]].astype(np.uint8)
    labels, mask = np.ascontiguousarray(big)
    mask[generator.random(shape) < (0, 0.1, 0.6)[seed % 3]] = 255
    metric = ObjectSize(3, edges=(0.01, 0.05, 0.3))
    assert table_of(metric, labels, mask).tolist() == by_objects(metric, labels, mask).tolist()


def test_a_snake_through_the_whole_image_is_one_object():
    mask = np.zeros((41, 41), np.uint8)
    mask[::2] = 1
    mask[1::4, -1] = mask[3::4, 0] = 1  # the ends of the rows, at the right and at the left in turn
    objects = table_of(ObjectSize(2), mask, mask)[3]
    assert objects.tolist() == [[0, 0, 0, 20], [0, 0, 0, 1]]


def test_bins_add_up_to_the_confusion_matrix(random_masks):
    labels, mask = random_masks(0, void=True)
    hits, true, false, _ = table_of(ObjectSize(4), labels, mask).sum(2)
    prediction = LabelMap(torch.from_numpy(labels), None)
    matrix = ConfusionMatrix(4).count(prediction, torch.from_numpy(mask)).view(4, 4)
    assert torch.equal(hits, matrix.diagonal())
    assert torch.equal(true, matrix.sum(1))
    assert torch.equal(false, matrix.sum(0) - matrix.diagonal())


def test_a_small_and_a_large_object_of_one_class():
    mask = np.zeros((10, 10), np.uint8)
    mask[0, 0:2] = 1  # two pixels, one of them predicted
    mask[4:8, 0:5] = 1  # twenty pixels, all predicted, plus five false ones
    labels = mask.copy()
    labels[0, 1] = 0
    labels[8, 0:5] = 1
    metric = ObjectSize(3, edges=(0.05, 0.5))
    result = metric.scores(table_of(metric, labels, mask).flatten(), ["ground", "thing", "none"])
    assert result["size/recall/to_5%"] == pytest.approx(1 / 2)
    assert result["size/iou/to_5%"] == pytest.approx(1 / 2)
    assert result["size/recall/to_50%"] == 1
    assert result["size/iou/to_50%"] == pytest.approx(20 / 25)
    assert result["size/recall/to_100%"] == pytest.approx(73 / 78)  # the ground
    assert [result[f"size/objects/to_{n}%"] for n in (5, 50, 100)] == [1, 1, 1]


def test_bin_without_objects_is_nan():
    flat = np.zeros((4, 4), np.uint8)
    metric = ObjectSize(2)
    result = metric.scores(table_of(metric, flat, flat).flatten(), ["a", "b"])
    assert math.isnan(result["size/recall/to_1%"]) and math.isnan(result["size/iou/to_1%"])
    assert result["size/iou/to_100%"] == 1


@pytest.mark.parametrize("edges", [(0.1, 0.01), (0.0, 0.1), (10, 100), (0.1, 0.1)])
def test_edges_that_do_not_increase_between_0_and_1_are_refused(edges):
    with pytest.raises(ValueError, match="choose increasing shares of the image between 0 and 1"):
        ObjectSize(2, edges)
