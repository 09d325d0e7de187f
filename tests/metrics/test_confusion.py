import math

import pytest
import torch

from gald.metrics.confusion import ConfusionMatrix, iou, scores


def counted_by_hand(prediction, target, k):
    matrix = torch.zeros(k, k, dtype=torch.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_matrix_equals_a_count_by_hand(dtype):
    prediction = torch.randint(0, 7, (2, 9, 11))
    target = torch.randint(0, 7, (2, 9, 11), dtype=torch.uint8)
    target[torch.rand(target.shape) < 0.2] = 255
    metric = ConfusionMatrix(7)
    metric.update(prediction.to(dtype), target)
    assert torch.equal(metric.compute(), counted_by_hand(prediction, target, 7))


def test_miou_is_over_the_set_and_not_a_mean_of_images():
    # A class that one image has almost nowhere: per image its IoU would average to one half.
    big, tiny = torch.zeros(1, 10, 10).int(), torch.zeros(1, 10, 10).int()
    big[:, 5:] = 1
    tiny[0, 0, 0] = 1
    metric = ConfusionMatrix(2)
    metric.update(big, big)
    metric.update(torch.zeros_like(tiny), tiny)
    assert float(iou(metric.compute())[1]) == pytest.approx(50 / 51)


def test_absent_class_is_nan_and_left_out_of_the_mean():
    matrix = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    result = scores(matrix, ["road", "car", "sky"])
    assert math.isnan(result["iou/sky"])
    assert result["iou/road"] == pytest.approx(3 / 4)
    assert result["iou/car"] == pytest.approx(4 / 5)
    assert result["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert result["accuracy"] == pytest.approx(7 / 8)
    assert result["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert result["classes_present"] == 2


def test_predicted_but_never_true_class_counts_as_zero():
    assert scores(torch.tensor([[2, 2], [0, 0]]), ["a", "b"])["iou/b"] == 0


def test_sets_in_any_order_and_split_give_the_same_integers():
    prediction, target = torch.randint(0, 4, (6, 5, 5)), torch.randint(0, 4, (6, 5, 5))
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    whole.update(prediction, target)
    for i in (5, 0, 3, 1, 4, 2):
        parts.update(prediction[i : i + 1], target[i : i + 1])
    assert torch.equal(whole.compute(), parts.compute())


def test_label_outside_the_classes_is_an_error_and_not_a_wrong_number():
    with pytest.raises(ValueError, match=r"label 9 is neither one of the 3 classes nor void"):
        ConfusionMatrix(3).update(torch.zeros(1, 2, 2).int(), torch.full((1, 2, 2), 9))


def test_prediction_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and mask \(1, 3, 3\) differ"):
        ConfusionMatrix(3).update(torch.zeros(1, 2, 2).int(), torch.zeros(1, 3, 3).int())
