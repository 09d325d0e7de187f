"""Learning-rate schedules, stepped after every optimizer step."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gald.options.ranges import Positive, Whole


def poly(
    optimizer: Optimizer, total_steps: int, power: Positive = 0.9, warmup_steps: Whole = 0
) -> LambdaLR:
    """Decay the learning rate as (1 - step / total_steps) ** power, the authors' schedule.

    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/utils/tools.py:lr_poly; the linear warm-up is added.
    """
    return _schedule(optimizer, total_steps, warmup_steps, lambda t: (1 - t) ** power)


def cosine(optimizer: Optimizer, total_steps: int, warmup_steps: Whole = 0) -> LambdaLR:
    """Decay the learning rate along half a cosine to zero, after a linear warm-up."""
    return _schedule(
        optimizer, total_steps, warmup_steps, lambda t: (1 + math.cos(math.pi * t)) / 2
    )


def _schedule(
    optimizer: Optimizer, total_steps: int, warmup_steps: int, factor: Callable[[float], float]
) -> LambdaLR:
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps ({warmup_steps}) must be below the {total_steps} steps of this "
            "training; lower scheduler.warmup_steps or raise trainer.max_epochs"
        )

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return factor(min((step - warmup_steps) / (total_steps - warmup_steps), 1.0))

    return LambdaLR(optimizer, scale)
