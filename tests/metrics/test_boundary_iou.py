import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from gald.inference import LabelMap
from gald.metrics.boundary_iou import BoundaryIoU


def table_of(metric, labels, mask):
    counts = metric.count(LabelMap(torch.from_numpy(labels), None), torch.from_numpy(mask))
    return counts.view(len(metric.widths), 3, -1)


def eroded_band(inside, width):
    padded = np.pad(inside, 1)
    inner = ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=width)
    return inside & ~inner[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_those_of_eroded_masks(seed, random_masks):
    labels, mask = random_masks(seed, void=False)
    metric = BoundaryIoU(4, widths=(5, 1, 0.04, 0.05, 100, 2))
    ours = table_of(metric, labels, mask)
    assert 0.04 * math.hypot(*mask.shape) == pytest.approx(2.33, abs=0.01)  # and 0.05 is 2.91
    for row, width in zip(ours, (5, 1, 2, 3, 100, 2), strict=True):
        for index in range(4):
            true, predicted = (eroded_band(x == index, width) for x in (mask, labels))
            by_hand = [(true & predicted).sum(), true.sum(), predicted.sum()]
            assert row[:, index].tolist() == by_hand


@pytest.mark.parametrize("seed", range(4))
def test_void_is_no_class_and_has_no_contour(seed, random_masks, touching):
    labels, mask = random_masks(seed, void=True)
    ours = table_of(BoundaryIoU(4, widths=(1, 3)), labels, mask)
    labels = np.where(mask == 255, 255, labels)
    away = [1 + ndimage.distance_transform_cdt(~touching(x), "chessboard") for x in (mask, labels)]
    for row, width in zip(ours, (1, 3), strict=True):
        true, predicted = (near <= width for near in away)
        for index in range(4):
            in_true, in_predicted = true & (mask == index), predicted & (labels == index)
            by_hand = [(in_true & in_predicted).sum(), in_true.sum(), in_predicted.sum()]
            assert row[:, index].tolist() == by_hand


def test_void_between_two_classes_has_no_band_unlike_in_the_published_code():
    # The numbers of the docstring: two halves of 15x10, the first column of the second one void.
    mask = np.zeros((15, 20), np.uint8)
    mask[:, 10], mask[:, 11:] = 255, 1
    ours = table_of(BoundaryIoU(2, widths=(3,)), np.zeros_like(mask), mask)[0, 1]
    inside = np.full((15, 20), False)
    inside[3:-3, 3:] = True  # more than 2 steps from the edge of the image
    assert ours[0] == ((mask == 0) & ~inside).sum() == 87
    assert eroded_band(mask == 0, 3).sum() == 114
    other = np.pad(mask == 1, 1, constant_values=True)
    steps = ndimage.distance_transform_cdt(~other, "chessboard")[1:-1, 1:-1]
    assert ((mask == 0) & (steps <= 3)).sum() == 105


def test_steps_lead_across_void_to_the_contour_of_two_other_classes():
    mask = np.full((40, 40), 255, np.uint8)
    mask[20, 10:20], mask[20, 20:30] = 1, 2  # their contour is at columns 19 and 20
    mask[16, 15:25] = 0  # a bar of its own, four steps above, that touches nothing but void
    for width, pixels in ((4, 0), (5, 10)):
        ours = table_of(BoundaryIoU(3, widths=(width,)), np.zeros_like(mask), mask)
        assert ours[0, 1, 0] == pixels


def test_score_of_a_square_that_is_one_pixel_off():
    # 4x4 squares inside 8x8: one column apart, contours of 12 pixels share 6.
    mask, labels = np.zeros((2, 8, 8), np.uint8)
    mask[2:6, 2:6], labels[2:6, 3:7] = 1, 1
    metric = BoundaryIoU(3, widths=(1, 2))
    result = metric.scores(table_of(metric, labels, mask).flatten(), ["ground", "square", "none"])
    assert result["boundary_iou/1/square"] == pytest.approx(6 / 18)
    assert result["boundary_iou/2/square"] == pytest.approx(12 / 20)
    assert math.isnan(result["boundary_iou/1/none"])
    mean = (result["boundary_iou/1/ground"] + result["boundary_iou/1/square"]) / 2
    assert result["boundary_iou/1"] == pytest.approx(mean)


@pytest.mark.parametrize("width", [0, -1, 1.5])
def test_invalid_width_is_refused(width):
    with pytest.raises(ValueError, match="is neither whole pixels nor a share below 1"):
        BoundaryIoU(3, widths=(3, width))
