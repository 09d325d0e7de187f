"""Norms for passes that only propagate shapes, many times cheaper than torch's own there."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override


class ShapeNorms(TorchFunctionMode):
    """Context in which batch, layer and group norm are a scaling: the same shapes and gradients.

    On tensors without data torch takes each norm apart into dozens of small operations, which is
    most of the time of such a pass. Here the output has the shape, type and layout of the input,
    and depends on the same parameters. The values would be wrong, so this is for no other pass.
    """

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        norm = _NORMS.get(func)
        return (norm or func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *options: Any,
    **more: Any,
) -> Tensor:
    return _scaled(input, *(_per_channel(input, p) for p in (weight, bias)))


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    return _scaled(input, *(_per_channel(input, p) for p in (weight, bias)))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    return _scaled(input, weight, bias)


def _per_channel(x: Tensor, parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.view(-1, *(1,) * (x.dim() - 2))


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = x.clone() if weight is None else x * weight
    return (y if bias is None else y + bias).to(x.dtype)


_NORMS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.batch_norm: _batch_norm,
    functional.group_norm: _group_norm,
    functional.layer_norm: _layer_norm,
}
