import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from gald.inference import LabelMap
from gald.metrics.trimap import Trimap


def scores_of(metric, labels, mask):
    counts = metric.count(LabelMap(torch.from_numpy(labels), None), torch.from_numpy(mask))
    return metric.scores(counts, [])


@pytest.mark.parametrize("seed", range(4))
def test_error_rates_equal_those_from_scipy(seed, random_masks, touching):
    labels, mask = random_masks(seed, void=True)
    ours = scores_of(Trimap(4, farthest=6), labels, mask)
    # The padding keeps the edge of the image from counting as a boundary.
    boundary = touching(np.pad(mask, 1, constant_values=255))[1:-1, 1:-1]
    away = 1 + ndimage.distance_transform_edt(~boundary)
    known, wrong = mask != 255, labels != mask
    for px in range(1, 7):
        band = known & (away <= px)
        assert ours[f"trimap/{px}"] == pytest.approx((band & wrong).sum() / band.sum())
    beyond = known & (away > 6)
    expected = (beyond & wrong).sum() / beyond.sum() if beyond.any() else math.nan
    assert ours["trimap/beyond"] == pytest.approx(expected, nan_ok=True)


def test_two_halves_with_one_wrong_pixel_at_the_boundary():
    mask = np.zeros((2, 8), np.uint8)
    mask[:, 4:] = 1
    labels = mask.copy()
    labels[0, 3] = 1
    ours = scores_of(Trimap(2, farthest=3), labels, mask)
    assert [ours[f"trimap/{px}"] for px in (1, 2, 3)] == pytest.approx([1 / 4, 1 / 8, 1 / 12])
    assert ours["trimap/beyond"] == 0


def test_image_of_one_class_has_no_boundary():
    flat = np.zeros((3, 3), np.uint8)
    ours = scores_of(Trimap(2), flat, flat)
    assert math.isnan(ours["trimap/40"]) and ours["trimap/beyond"] == 0


def test_farthest_distance_that_does_not_fit_a_byte_is_refused():
    with pytest.raises(ValueError, match="farthest is 300 pixels; choose 1 to 254"):
        Trimap(2, farthest=300)
