"""mIoU and related scores from one confusion matrix over a whole set of images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.metrics.base import (
    Bytes,
    CountMetric,
    columns,
    mean_of_known,
    named,
    pair_counts,
    ratio,
)

if TYPE_CHECKING:
    from torch import Tensor


class ConfusionMatrix(CountMetric):
    """Confusion matrix: how often each true class was predicted as each class.

    All pixels of the set have equal weight. `miou` is the mean over the classes that have true or
    predicted pixels; `classes_present` is their number. `mean_accuracy` is the mean over the
    classes that have true pixels. `fw_iou` weights each IoU by the class's share of the true
    pixels. A category's IoU merges its classes into one, as the Cityscapes benchmark does.

    Args:
        num_classes: number of scored classes, K.
        categories: class names per category; null leaves categories out.

    Shape:
        counts: K * K, rows true, columns predicted
    """

    name = "confusion"
    label = "mIoU"
    headlines = ("miou",)
    facts = ("classes_present",)

    def __init__(
        self, num_classes: int, categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(num_classes, num_classes * num_classes)
        self.categories = categories

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        return pair_counts(mask, labels)[: self.num_classes, : self.num_classes]

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        matrix = counts.reshape(self.num_classes, self.num_classes)
        hits, ground_truth = matrix.diagonal().double(), matrix.sum(1)
        per_class, recall = iou(matrix), hits / ground_truth
        result = {
            "miou": float(per_class.nanmean()),
            "accuracy": float(hits.sum() / ground_truth.sum()),
            "mean_accuracy": float(recall.nanmean()),
            "fw_iou": float((per_class * ground_truth).nansum() / ground_truth.sum()),
            "classes_present": int((~per_class.isnan()).sum()),
        }
        if self.categories is not None:
            member = _membership(self.categories, class_names)
            merged = member.T @ matrix.numpy() @ member
            per_category = iou(matrix.new_tensor(merged))
            result["category_miou"] = float(per_category.nanmean())
            result |= named("category_iou", list(self.categories), per_category)
        return (
            result | named("iou", class_names, per_class) | named("accuracy", class_names, recall)
        )

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        matrices = sums.reshape(len(sums), self.num_classes, -1).astype(np.float64)
        hits, truth = np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(2)
        per_class, recall = _iou_of_sets(matrices), ratio(hits, truth)
        pixels = truth.sum(1)
        result = {
            "miou": mean_of_known(per_class),
            "accuracy": ratio(hits.sum(1), pixels),
            "mean_accuracy": mean_of_known(recall),
            "fw_iou": ratio(np.nansum(per_class * truth, 1), pixels),
            "classes_present": (~np.isnan(per_class)).sum(1).astype(np.float64),
        }
        if self.categories is not None:
            member = _membership(self.categories, class_names)
            per_category = _iou_of_sets(member.T @ matrices @ member)
            result["category_miou"] = mean_of_known(per_category)
            result |= columns("category_iou", list(self.categories), per_category)
        result |= columns("iou", class_names, per_class)
        return result | columns("accuracy", class_names, recall)


def iou(matrix: "Tensor") -> "Tensor":
    """Compute the IoU per class (K,); nan for a class with neither true nor predicted pixels."""
    hits = matrix.diagonal().double()
    return hits / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())


def _iou_of_sets(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the IoU of each class (S, K) from matrices (S, K, K)."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    return ratio(hits, matrices.sum(1) + matrices.sum(2) - hits)


def _membership(
    categories: Mapping[str, Sequence[str]], class_names: Sequence[str]
) -> NDArray[np.int64]:
    """Return 1 where a class belongs to a category (K, categories)."""
    member = np.zeros((len(class_names), len(categories)), np.int64)
    for column, (category, members) in enumerate(categories.items()):
        for name in members:
            if name not in class_names:
                raise ValueError(
                    f"category {category} has class {name!r}, which is not in the data; choose "
                    f"from {', '.join(class_names)}"
                )
            member[class_names.index(name), column] = 1
    return member
