import math

import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from gald.inference import LabelMap
from gald.metrics.confusion import ConfusionMatrix, iou


def counted_by_hand(prediction, target, k):
    matrix = torch.zeros(k, k, dtype=torch.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


def matrix_of(prediction, target, k):
    metric = ConfusionMatrix(k)
    metric.update(LabelMap(prediction, None), target)
    return metric.compute().view(k, k)


def scores_of(matrix, names, **options):
    return ConfusionMatrix(len(names), **options).scores(torch.tensor(matrix).flatten(), names)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_matrix_equals_a_count_by_hand(dtype):
    prediction = torch.randint(0, 7, (2, 9, 11))
    target = torch.randint(0, 7, (2, 9, 11), dtype=torch.uint8)
    target[torch.rand(target.shape) < 0.2] = 255
    assert torch.equal(
        matrix_of(prediction.to(dtype), target, 7), counted_by_hand(prediction, target, 7)
    )


@pytest.mark.parametrize("k", [2, 19, 171, 254])
def test_matrix_equals_that_of_torchmetrics(k):
    prediction = torch.randint(0, k, (3, 70, 41), dtype=torch.uint8)
    target = torch.randint(0, k, (3, 70, 41), dtype=torch.uint8)
    target[torch.rand(target.shape) < 0.2] = 255
    theirs = MulticlassConfusionMatrix(k, ignore_index=255)
    assert torch.equal(matrix_of(prediction, target, k), theirs(prediction.int(), target.int()))


def test_more_pixels_of_one_class_than_float32_can_count():
    # In float32, 2^24 + 1 rounds back to 2^24.
    labels = torch.zeros(1, 4097, 4100, dtype=torch.uint8)
    assert matrix_of(labels, labels, 2).tolist() == [[4097 * 4100, 0], [0, 0]]


def test_miou_is_over_the_set_instead_of_a_mean_of_images():
    # One image has almost no pixel of class 1; a mean over images would give one half.
    big, tiny = torch.zeros(1, 10, 10).byte(), torch.zeros(1, 10, 10).byte()
    big[:, 5:] = 1
    tiny[0, 0, 0] = 1
    metric = ConfusionMatrix(2)
    metric.update(LabelMap(big, None), big)
    metric.update(LabelMap(torch.zeros_like(tiny), None), tiny)
    assert float(iou(metric.compute().view(2, 2))[1]) == pytest.approx(50 / 51)


def test_more_pixels_than_float32_can_count_are_counted_one_by_one():
    large = torch.zeros(1, 4097, 4097, dtype=torch.uint8)  # 2^24 + 8193
    assert matrix_of(large, large, 2)[0, 0] == 4097**2


def test_absent_class_is_nan_and_left_out_of_the_means():
    result = scores_of([[3, 1, 0], [0, 4, 0], [0, 0, 0]], ["road", "car", "sky"])
    assert math.isnan(result["iou/sky"]) and math.isnan(result["accuracy/sky"])
    assert result["iou/road"] == pytest.approx(3 / 4)
    assert result["iou/car"] == pytest.approx(4 / 5)
    assert result["accuracy/road"] == pytest.approx(3 / 4)
    assert result["accuracy/car"] == 1
    assert result["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert result["accuracy"] == pytest.approx(7 / 8)
    assert result["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert result["fw_iou"] == pytest.approx(4 / 8 * 3 / 4 + 4 / 8 * 4 / 5)
    assert result["classes_present"] == 2


def test_predicted_but_never_true_class_has_iou_zero():
    assert scores_of([[2, 2], [0, 0]], ["a", "b"])["iou/b"] == 0


def test_a_category_merges_its_classes():
    # Cars predicted as buses are correct as vehicles; trees predicted as cars are always wrong.
    result = scores_of(
        [[5, 3, 0, 0], [1, 4, 0, 0], [2, 0, 6, 0], [0, 0, 0, 0]],
        ["car", "bus", "tree", "sky"],
        categories={"vehicle": ["car", "bus"], "nature": ["tree"], "above": ["sky"]},
    )
    assert result["category_iou/vehicle"] == pytest.approx(13 / 15)
    assert result["category_iou/nature"] == pytest.approx(6 / 8)
    assert math.isnan(result["category_iou/above"])
    assert result["category_miou"] == pytest.approx((13 / 15 + 6 / 8) / 2)


def test_a_category_of_unknown_classes_is_refused():
    with pytest.raises(ValueError, match="category vehicle has class 'tram', which is not in"):
        scores_of([[1]], ["car"], categories={"vehicle": ["tram"]})


def test_label_outside_the_classes_is_an_error_instead_of_a_wrong_score():
    none, nine = torch.zeros(1, 2, 2).int(), torch.full((1, 2, 2), 9)
    with pytest.raises(ValueError, match="label 3 of the mask is neither one of the 3 classes nor"):
        matrix_of(none, none + 3, 3)
    with pytest.raises(ValueError, match="label 9 of the mask is neither one of the 3 classes nor"):
        matrix_of(none, nine, 3)
    with pytest.raises(ValueError, match="label 9 of the prediction is neither one of the 3"):
        matrix_of(nine, none, 3)
    with pytest.raises(ValueError, match="labels range from 300 to 300, but must be 0 to 255"):
        matrix_of(nine * 0 + 300, none, 3)


def test_prediction_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) and mask \(3, 3\) differ"):
        matrix_of(torch.zeros(1, 2, 2).int(), torch.zeros(1, 3, 3).int(), 3)
