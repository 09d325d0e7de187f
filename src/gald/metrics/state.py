"""Sum of counts over the images of all processes, as a metric of torchmetrics."""

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override


class SummedCounts(Metric):
    """Sum of count vectors; it moves with the network to its device, and adds up all processes.

    Args:
        width: length of the vectors.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(width, dtype=torch.int64), dist_reduce_fx="sum")

    @override
    def update(self, counts: Tensor) -> None:
        """Add the counts of an image (width,)."""
        self.counts += counts.to(self.device)

    @override
    def compute(self) -> Tensor:
        """Return the sum over all images of all processes, (width,)."""
        return self.counts
