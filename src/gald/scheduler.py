"""Learning-rate schedules, stepped after every optimizer step."""

import math
from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gald.options.ranges import Fraction, Part, Positive, Whole


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


def constant(optimizer: Optimizer, total_steps: int, warmup_steps: Whole = 0) -> LambdaLR:
    """Keep the learning rate, after a linear warm-up."""
    return _schedule(optimizer, total_steps, warmup_steps, lambda t: 1.0)


def wsd(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: Whole = 0,
    decay: Fraction = 0.2,
    shape: Literal["sqrt", "linear", "cosine"] = "sqrt",
) -> LambdaLR:
    """Warm up, keep the learning rate (stable), then decay it to zero.

    With u the share of the decay that is done, the factor is 1 - sqrt(u), 1 - u or half a cosine.

    Paper: "MiniCPM", https://arxiv.org/abs/2404.06395; the square root is from "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", https://arxiv.org/abs/2405.18392.

    Args:
        optimizer: the optimizer.
        total_steps: optimizer steps of the training.
        warmup_steps: steps of the linear warm-up.
        decay: share of the steps after the warm-up in which the learning rate decays; 0 keeps it.
        shape: of the decay.
    """
    if shape not in _DECAYS:
        raise ValueError(f"scheduler.shape ({shape}) must be one of {', '.join(_DECAYS)}")

    def factor(t: float) -> float:
        return 1.0 if t <= 1 - decay else _DECAYS[shape]((t - 1 + decay) / decay)

    return _schedule(optimizer, total_steps, warmup_steps, factor)


_DECAYS: dict[str, Callable[[float], float]] = {
    "sqrt": lambda u: 1 - math.sqrt(u),
    "linear": lambda u: 1 - u,
    "cosine": lambda u: _between(1.0, 0.0, u),
}


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    rise: Part = 0.3,
    start: Part = 0.04,
    end: Fraction = 4e-6,
) -> LambdaLR:
    """Raise the learning rate along half a cosine, then lower it along half a cosine.

    The defaults are those of `torch.optim.lr_scheduler.OneCycleLR`, which this equals, except that
    momentum is constant. The rise is the warm-up.

    Paper: "Super-Convergence", https://arxiv.org/abs/1708.07120.

    Args:
        optimizer: the optimizer; its learning rate is the highest one.
        total_steps: optimizer steps of the training.
        rise: share of the steps in which the learning rate rises.
        start: learning rate of the first step, in units of the highest.
        end: learning rate of the last step, in units of the highest.
    """
    top = max(0.0, rise * total_steps - 1)
    last = max(top + 1e-9, total_steps - 1)  # a single step has the highest rate

    def scale(step: int) -> float:
        if step < top:
            return _between(start, 1.0, step / top)
        return _between(1.0, end, min(1.0, (step - top) / (last - top)))

    return LambdaLR(optimizer, scale)


def _between(first: float, last: float, share: float) -> float:
    """Go from one value to another along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def _schedule(
    optimizer: Optimizer, total_steps: int, warmup_steps: int, factor: Callable[[float], float]
) -> LambdaLR:
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps ({warmup_steps}) must be below the {total_steps} steps of this "
            f"training; set scheduler.warmup_steps={total_steps - 1} or less, or train longer"
        )

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return factor(min((step - warmup_steps) / (total_steps - warmup_steps), 1.0))

    return LambdaLR(optimizer, scale)
