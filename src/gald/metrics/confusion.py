"""The mIoU family from one confusion matrix over a whole image set."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class ConfusionMatrix(Metric):
    """Counts, over all images together, how often each true class was taken for each class.

    Counts are 64-bit integers, so one process and eight agree to the last digit, and no image
    weighs more than its pixels.

    Args:
        num_classes: classes that are scored.
        ignore_index: label of void pixels, which count nowhere.

    Shape:
        prediction, target (both (B, H, W), integers) -> matrix (K, K), rows true, columns
        predicted
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:  # noqa: D102
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and mask {tuple(target.shape)} differ in "
                "size; predict at the size of the mask"
            )
        k = self.num_classes
        # Void goes to a row of its own, cut off after counting: no boolean copy of the pixels.
        target = target.to(torch.int32)
        row = torch.where(target == self.ignore_index, k, target)
        cells = (k + 1) * k
        index = (row * k + prediction.to(torch.int32)).flatten()
        counts = torch.bincount(index, minlength=cells)
        if len(counts) > cells:
            raise ValueError(
                f"label {int(row.max())} is neither one of the {k} classes nor void "
                f"({self.ignore_index}); check the dataset's label_map"
            )
        self.matrix += counts.view(k + 1, k)[:k]

    def compute(self) -> Tensor:  # noqa: D102
        return self.matrix


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union per class (K,); nan where a class is neither true nor predicted."""
    hits = matrix.diagonal().double()
    return hits / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())


def scores(matrix: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """The numbers people report, under the names they are logged with.

    `miou` and `mean_accuracy` are means over the classes that occur; `classes_present` says over
    how many.

    Args:
        matrix: (K, K) counts, rows true, columns predicted.
        class_names: K names for the `iou/<class>` entries.
    """
    per_class = iou(matrix)
    hits = matrix.diagonal().double()
    return {
        "miou": float(per_class.nanmean()),
        "accuracy": float(hits.sum() / matrix.sum()),
        "mean_accuracy": float((hits / matrix.sum(1)).nanmean()),
        "classes_present": int((~per_class.isnan()).sum()),
        **{f"iou/{name}": float(v) for name, v in zip(class_names, per_class, strict=True)},
    }
