"""Optimizer with parameter groups for backbone and head, with and without weight decay."""

import difflib
from collections.abc import Sequence
from typing import Any, Protocol

from omegaconf import ListConfig, OmegaConf
from rich.table import Table
from torch import nn
from torch.optim import Optimizer

from gald.options.check import check_arguments
from gald.options.ranges import NotNegative


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


class Timm:
    """Factory of an optimizer of timm, by name.

    It is built as by `timm.optim.create_optimizer_v2`: a name such as `nesterov` or `radamw` stands
    for a class and some of its options, and momentum is 0.9 where it exists. The parameter groups
    are ours.

    Args:
        name: one of `timm.optim.list_optimizers()`, without those of apex and bitsandbytes and
            those that need second derivatives.
        lr: learning rate.
        weight_decay: weight decay; whether it is decoupled depends on the optimizer.
        options: further arguments of the optimizer's class, such as `betas`, `eps` or `foreach`.

    Raises:
        ValueError: there is no such optimizer, or an option is not an argument of it or out of its
            range.
    """

    def __init__(
        self, name: str, lr: NotNegative, weight_decay: NotNegative = 0.0, **options: Any
    ) -> None:
        from timm import optim  # late, because it takes time, and most trainings do not need it

        plain = {key: _plain(value) for key, value in options.items()}
        self.name = name
        self.keywords: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, **plain}
        every: Any = optim.list_optimizers()
        known = [one for one in every if not one.startswith(("bnb", "fused"))]
        known = [one for one in known if not optim.get_optimizer_info(one).second_order]
        if name not in known:
            near = difflib.get_close_matches(str(name).lower().removeprefix("bnb"), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "choose lamb, lion, nadamw or another"
            raise ValueError(
                f"optimizer.name={name} is none of the {len(known)} optimizers of timm that train "
                f"here; {hint}"
            )
        build = optim.get_optimizer_class(name, bind_defaults=False)
        check_arguments(build, {**self.keywords, "_partial_": True}, "optimizer")

    def __call__(self, params: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer for these parameter groups."""
        from timm import optim

        return optim.create_optimizer_v2(params, self.name, **self.keywords)


def build_optimizer(
    model: nn.Module,
    factory: OptimizerFactory,
    head_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
    layer_decay: float | None = None,
) -> Optimizer:
    """Build the optimizer of a network.

    Args:
        model: the network; its `backbone` or `host` counts as backbone, everything else as head.
        factory: builds the optimizer; its `lr` applies to the backbone, its `weight_decay` to the
            weights that decay.
        head_lr_factor: the head's learning rate in units of `lr`.
        decay_norm_and_bias: whether vectors (norm scales and all biases) decay too, as in the
            authors' recipe.
        layer_decay: see `parameter_groups`.

    Raises:
        ValueError: see `parameter_groups`.
    """
    groups = parameter_groups(
        model,
        factory.keywords["lr"],
        factory.keywords.get("weight_decay", 0.0),
        head_lr_factor,
        decay_norm_and_bias,
        layer_decay,
    )
    optimizer = factory(groups)
    for group in optimizer.param_groups:  # a checkpoint holds plain data
        group.update({key: _plain(value) for key, value in group.items()})
    return optimizer


def _plain(value: Any) -> Any:
    """Return a list of a config as a tuple, and other values unchanged."""
    if not isinstance(value, ListConfig):
        return value
    entries: Any = OmegaConf.to_container(value)
    return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in entries)


def refuse_fused_clipping(optimizer: Optimizer, precision: str, clip: float | None) -> None:
    """Refuse to clip gradients that a fused optimizer unscales in its own step."""
    if clip and precision == "16-mixed" and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            f"trainer.gradient_clip_val={clip} with trainer.precision=16-mixed clips gradients "
            "before they are scaled back, if optimizer.fused=true; set optimizer.fused=null, or "
            "trainer.precision=bf16-mixed"
        )


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    head_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Split the parameters by backbone or head, by layer, and by whether they decay.

    Parameters that do not train (`requires_grad` is false) belong to no group.

    Args:
        model: the network; everything but its backbone or host counts as head.
        lr: learning rate of the backbone.
        weight_decay: weight decay of the weights that decay.
        head_lr_factor: the head's learning rate in units of `lr`.
        decay_norm_and_bias: whether vectors (norm scales and all biases) decay too, as in the
            authors' recipe.
        layer_decay: factor on the learning rate from each layer of the backbone to the one before,
            above 0 and at most 1. The last of L layers trains with lr * layer_decay, the stem with
            lr * layer_decay^L; the head, behind the last layer, keeps lr * head_lr_factor. Layers
            are those of timm's `group_matcher`, usually residual blocks; frozen layers count. None
            trains the whole backbone with lr.

    Returns:
        Non-empty groups with `name`, `params`, `lr` and `weight_decay`.

    Raises:
        ValueError: nothing trains, `layer_decay` is out of range, or the layers of the backbone are
            unknown.
    """
    scales = {} if layer_decay is None else _layer_scales(model, layer_decay)
    groups: dict[tuple[str, float, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, scale = "head", head_lr_factor
        if name.startswith(("backbone.", "host.")):
            part, scale = scales.get(name, (name.partition(".")[0], 1.0))
        decays = decay_norm_and_bias or parameter.ndim > 1
        groups.setdefault((part, scale, decays), []).append(parameter)
    if not groups:
        raise ValueError("no parameter of the network trains; set model.backbone.frozen=false")
    return [
        {
            "name": part + ("" if decays else ", no decay"),
            "params": params,
            "lr": lr * scale,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, scale, decays), params in groups.items()
    ]


def _layer_scales(model: nn.Module, layer_decay: float) -> dict[str, tuple[str, float]]:
    """Return the name of the layer and the factor on the learning rate of backbone parameters."""
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"task.layer_decay is {layer_decay}; set it above 0 and at most 1, for example 0.75, "
            "or to null"
        )
    backbone = getattr(model, "trunk", getattr(model, "backbone", None))
    if not hasattr(backbone, "layer_numbers"):
        raise ValueError(
            f"the layers of {type(backbone).__name__} are unknown (it has no layer_numbers); set "
            "task.layer_decay=null"
        )
    numbers: dict[str, int] = backbone.layer_numbers()
    count = max(numbers.values()) + 1
    return {
        f"backbone.{key}": (f"backbone, layer {number}", layer_decay ** (count - number))
        for key, number in numbers.items()
    }


def group_table(groups: list[dict[str, Any]], still: Sequence[nn.Parameter] = ()) -> Table:
    """Format the parameter groups as a table to print before training.

    Args:
        groups: those of the optimizer.
        still: the parameters that do not train; they get a row of their own.
    """
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
    if still:
        total = sum(p.numel() for p in still)
        table.add_row("frozen or unused", f"{len(still)}", f"{total:,}", "-", "-")
    return table
