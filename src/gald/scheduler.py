"""Parameter groups and learning-rate schedules, both per iteration."""

import math
from collections.abc import Callable
from typing import Any

from rich.table import Table
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gald.model.segmentor import Segmentor


def parameter_groups(
    model: Segmentor,
    lr: float,
    weight_decay: float,
    head_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
) -> list[dict[str, Any]]:
    """Splits the parameters so that new layers learn faster and norms keep their scale.

    Args:
        model: what is trained; all but its backbone counts as head.
        lr: learning rate of the backbone.
        weight_decay: for the weights that decay.
        head_lr_factor: the head's learning rate in units of `lr`.
        decay_norm_and_bias: whether vectors (norm scales and all biases) decay too, as in the
            authors' recipe.

    Returns:
        Groups with `name`, `params`, `lr` and `weight_decay`, none of them empty.
    """
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = decay_norm_and_bias or parameter.ndim > 1
            groups.setdefault((name.startswith("backbone."), decays), []).append(parameter)
    return [
        {
            "name": ("backbone" if in_backbone else "head") + ("" if decays else ", no decay"),
            "params": params,
            "lr": lr if in_backbone else lr * head_lr_factor,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), params in groups.items()
    ]


def group_table(groups: list[dict[str, Any]]) -> Table:
    """The parameter groups as a table to print before training."""
    table = Table("group", title="parameter groups")
    for column in ("tensors", "parameters", "lr", "weight decay"):
        table.add_column(column, justify="right")
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        table.add_row(
            group["name"],
            f"{len(group['params'])}",
            f"{count:,}",
            f"{group['lr']:g}",
            f"{group['weight_decay']:g}",
        )
    return table


def poly(
    optimizer: Optimizer, total_steps: int, power: float = 0.9, warmup_steps: int = 0
) -> LambdaLR:
    """Learning rate falling as (1 - step / total_steps) ** power, as the authors train.

    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/utils/tools.py:lr_poly; the linear warm-up is added.
    """
    return _schedule(optimizer, total_steps, warmup_steps, lambda t: (1 - t) ** power)


def cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LambdaLR:
    """Learning rate falling along half a cosine to zero, after a linear warm-up."""
    return _schedule(
        optimizer, total_steps, warmup_steps, lambda t: (1 + math.cos(math.pi * t)) / 2
    )


def _schedule(
    optimizer: Optimizer, total_steps: int, warmup_steps: int, factor: Callable[[float], float]
) -> LambdaLR:
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps ({warmup_steps}) must be below the {total_steps} steps of this "
            "training; lower scheduler.warmup_steps or train longer"
        )

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return factor(min((step - warmup_steps) / (total_steps - warmup_steps), 1.0))

    return LambdaLR(optimizer, scale)
