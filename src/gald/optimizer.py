"""Optimizer with parameter groups for backbone and head, with and without weight decay."""

from typing import Any, Protocol

from rich.table import Table
from torch import nn
from torch.optim import Optimizer


class OptimizerFactory(Protocol):
    """Partial of an optimizer class, as Hydra builds it from conf/optimizer.

    Attributes:
        keywords: options of the optimizer, including `lr`.
    """

    @property
    def keywords(self) -> dict[str, Any]:
        """The options of the optimizer."""
        ...

    def __call__(self, params: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer for these parameter groups."""
        ...


def build_optimizer(
    model: nn.Module,
    factory: OptimizerFactory,
    head_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
) -> Optimizer:
    """Build the optimizer of a network.

    Args:
        model: the network; its `backbone` counts as backbone, everything else as head.
        factory: builds the optimizer; its `lr` applies to the backbone, its `weight_decay` to the
            weights that decay.
        head_lr_factor: the head's learning rate in units of `lr`.
        decay_norm_and_bias: whether vectors (norm scales and all biases) decay too, as in the
            authors' recipe.
    """
    groups = parameter_groups(
        model,
        factory.keywords["lr"],
        factory.keywords.get("weight_decay", 0.0),
        head_lr_factor,
        decay_norm_and_bias,
    )
    return factory(groups)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    head_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
) -> list[dict[str, Any]]:
    """Split the parameters by backbone or head, and by whether they decay.

    Args:
        model: the network; everything but its backbone counts as head.
        lr: learning rate of the backbone.
        weight_decay: weight decay of the weights that decay.
        head_lr_factor: the head's learning rate in units of `lr`.
        decay_norm_and_bias: whether vectors (norm scales and all biases) decay too, as in the
            authors' recipe.

    Returns:
        Non-empty groups with `name`, `params`, `lr` and `weight_decay`.
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
    """Format the parameter groups as a table to print before training."""
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
