import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from gald.inference import LabelMap
from gald.metrics.calibration import CalibrationError


def ece(labels, confidence, mask, **options):
    metric = CalibrationError(4, **options)
    metric.update(LabelMap(labels, confidence), mask)
    return metric.scores(metric.compute(), [])["ece"]


def test_four_pixels_by_hand():
    labels = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    mask = torch.tensor([[[0, 1], [0, 255]]], dtype=torch.uint8)
    confidence = torch.tensor([[[0.75, 1.0], [0.25, 0.5]]])
    # One bin per pixel: right at 0.75 and at 1, wrong at 0.25; void does not count.
    assert ece(labels, confidence, mask, bins=4) == pytest.approx((0.25 + 0.0 + 0.25) / 3)
    # One bin for all: two of three right, mean confidence 2/3.
    assert ece(labels, confidence, mask, bins=1) == pytest.approx(0)


def test_a_bin_includes_its_upper_edge():
    labels = torch.zeros(1, 1, 2, dtype=torch.uint8)
    mask = torch.tensor([[[0, 1]]], dtype=torch.uint8)  # right at 0.5, wrong at 1: one bin each
    assert ece(labels, torch.tensor([[[0.5, 1.0]]]), mask, bins=2) == (0.5 + 1.0) / 2


def test_equals_torchmetrics():
    # The binary form takes a probability per pixel and whether the pixel is right.
    labels = torch.randint(0, 4, (2, 40, 50), dtype=torch.uint8)
    mask = torch.randint(0, 4, (2, 40, 50), dtype=torch.uint8)
    confidence = torch.randint(2**15, (2, 40, 50)) / 2**15  # ours rounds to these values
    theirs = binary_calibration_error(confidence, (labels == mask).int(), n_bins=15, norm="l1")
    assert ece(labels, confidence, mask) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 1.0 + 1e-7])
def test_ends_of_the_range_are_counted(value):
    right = torch.zeros(1, 2, 2, dtype=torch.uint8)
    assert ece(right, torch.full((1, 2, 2), value), right) == pytest.approx(1 - min(value, 1))


def test_missing_confidence_names_the_remedy():
    labels = torch.zeros(1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="needs confidences; predict with confidence=True"):
        ece(labels, None, labels)
