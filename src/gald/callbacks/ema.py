"""Exponential moving average of the weights."""

from functools import partial

from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from gald.options.ranges import Fraction, Positive


class MovingAverage(WeightAveraging):
    """Callback that averages the weights; validation and checkpoints use the average.

    After the n-th update, n = 1, 2, ..., the average keeps the share
    min(decay, 1 - n ** -power) of itself, so that the average of a short run does not consist of
    untrained weights. The first update copies the weights. timm's `ModelEmaV3` warms up by the same
    formula.

    Args:
        decay: largest share that an update keeps, 0 to 1.
        power: speed of the warm-up; 2/3 reaches a decay of 0.999 after 31,600 steps, 0.9 after 31.
    """

    def __init__(self, decay: Fraction = 0.999, power: Positive = 2 / 3) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}, outside 0..1; choose for example 0.999")
        super().__init__(avg_fn=partial(_update, decay=decay, power=power))


def _update(average: Tensor, now: Tensor, updates: Tensor, decay: float, power: float) -> Tensor:
    keep = min(decay, 1 - (1 + float(updates)) ** -power)
    return keep * average + (1 - keep) * now
