import math

import cv2
import numpy as np
import pytest
import torch

from gald.data.camvid import CamVid
from gald.inference import LabelMap
from gald.metrics.thin import ThinClasses

NAMES = ["ground", "pole", "none"]


def street():
    mask = np.zeros((60, 80), np.uint8)  # its diagonal is 100
    mask[:, 20:22] = 1
    return mask


def scores_of(metric, labels, mask, names=NAMES):
    counts = metric.count(LabelMap(torch.from_numpy(labels), None), torch.from_numpy(mask))
    return metric.scores(counts, names)


def test_measured_width_of_a_bar_is_its_width():
    mask = street()
    result = scores_of(ThinClasses(3, max_width=0.02), mask, mask)  # the pole is just thin
    assert result["thin/width/pole"] == pytest.approx(2 / 100)
    assert result["thin/width/ground"] == pytest.approx(2 * 60 * 78 / (2 * 60) / 100)
    assert math.isnan(result["thin/width/none"])
    assert result["thin/classes"] == 1 and result["thin/miou"] == 1


def test_score_is_the_mean_iou_of_only_the_thin_classes():
    mask = street()
    labels = mask.copy()
    labels[:30, 20:22] = 0
    labels[40:50, 40:70] = 2  # wrong, but not a thin class
    result = scores_of(ThinClasses(3, max_width=0.03), labels, mask)
    assert result["thin/miou"] == pytest.approx(1 / 2)


def test_which_classes_are_thin_depends_only_on_the_true_masks():
    mask = street()
    wrong = np.full_like(mask, 2)
    result = scores_of(ThinClasses(3, max_width=0.03), wrong, mask)
    assert result["thin/classes"] == 1 and result["thin/miou"] == 0


def test_score_without_thin_classes_is_nan():
    flat = np.zeros((4, 4), np.uint8)
    result = scores_of(ThinClasses(3), flat, flat)
    assert result["thin/classes"] == 0 and math.isnan(result["thin/miou"])


def test_poles_signs_and_pedestrians_of_camvid_are_thin(real_data):
    metric = ThinClasses(len(CamVid.class_names))
    for path in sorted((real_data / "camvid" / "valannot").glob("*.png"))[::2]:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mask[mask == 11] = 255
        ground_truth = torch.from_numpy(mask)
        metric.update(LabelMap((ground_truth % 255)[None], None), ground_truth[None])
    result = metric.scores(metric.compute(), CamVid.class_names)
    thin = {n for n in CamVid.class_names if result[f"thin/width/{n}"] <= metric.max_width}
    assert thin == {"Pole", "SignSymbol", "Pedestrian"}
