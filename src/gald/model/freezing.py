"""Frozen parts of a timm network: weights that do not train, and what stays in evaluation mode."""

from typing import Any

from torch import nn

from gald.model.stages import layer_numbers


def freeze(net: nn.Module, name: str, frozen: bool | int) -> None:
    """Stop the training of a network's weights.

    Args:
        net: timm's feature extractor.
        name: timm's name of the network.
        frozen: true for all weights, N for the stem and the first N stages.

    Raises:
        ValueError: the network does not have so many stages, or `frozen` is no such number.
    """
    if frozen is False:
        return
    if frozen is True:
        net.requires_grad_(False)
        return
    if not isinstance(frozen, int) or frozen < 0:
        raise ValueError(
            f"model.backbone.frozen is {frozen!r}; set it to false (nothing), true (all) or N "
            "(the stem and the first N stages, 0 or more)"
        )
    numbers = layer_numbers(net, name, stages=True)
    count = max(numbers.values())
    if frozen > count:
        raise ValueError(
            f"model.backbone.frozen is {frozen}, but {name} has a stem and {count} stages; set "
            f"model.backbone.frozen to at most {count}, or to true for all of it"
        )
    for key, parameter in net.named_parameters():
        if numbers[key] <= frozen:
            parameter.requires_grad_(False)


def check_frozen_weights(backbone: Any) -> str | None:
    """Refuse to freeze random weights, which would never learn.

    Args:
        backbone: a `TimmBackbone` at the start of a training; a host freezes nothing.

    Returns:
        a warning to print, if only batch norm is frozen; else None.

    Raises:
        ValueError: random weights are frozen.
    """
    if not getattr(backbone, "random", False):
        return None
    if getattr(backbone, "frozen", False) is not False:
        raise ValueError(
            f"model.backbone.frozen is {backbone.frozen}, but model.backbone.weights is null, so "
            f"{backbone.name} would keep random weights; set model.backbone.weights=timm (or a "
            "file), init_from=RUN, or model.backbone.frozen=false"
        )
    if getattr(backbone, "frozen_bn", False):
        return (
            f"batch norm of {backbone.name} keeps the initial statistics (mean 0, variance 1), as "
            "model.backbone.frozen_bn is true and model.backbone.weights is null; set "
            "model.backbone.weights=timm (or a file)"
        )
    return None


def frozen_modules(net: nn.Module, name: str = "") -> list[str]:
    """List the largest modules with frozen weights only; they stay in evaluation mode."""
    parameters = list(net.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return [name]
    return [
        found
        for child, module in net.named_children()
        for found in frozen_modules(module, f"{name}.{child}" if name else child)
    ]


def batch_norms(net: nn.Module) -> list[nn.Module]:
    """List the modules of a network that keep running statistics of batches."""
    return [m for m in net.modules() if getattr(m, "running_var", None) is not None]
