"""The two context slots, in the order that an ablation asks for."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

Order = Literal["ga_ld", "ld_ga", "parallel"]
ORDERS = ("ga_ld", "ld_ga", "parallel")

Aggregate = Callable[[Tensor], Tensor]
Distribute = Callable[[Tensor, Tensor], Tensor]


def check_order(order: str) -> None:
    """Raise a ValueError that names the choices if there is no such order."""
    if order not in ORDERS:
        raise ValueError(f"model.order is {order!r}; choose one of {', '.join(ORDERS)}")


def context_of(ga: Aggregate, x: Tensor, order: str) -> Tensor:
    """Return what the LD gets as context: ga(x), or x itself if LD comes first.

    Raises:
        ValueError: the GA changed the shape.
    """
    return x if order == "ld_ga" else _aggregated(ga, x)


def run_slots(
    ga: Aggregate, ld: Distribute, context: Tensor, x: Tensor, order: str, add_twice: bool
) -> Tensor:
    """Finish the pass through both slots.

    Args:
        ga: global aggregation, x -> context.
        ld: local distribution, (context, x) -> feature.
        context: result of `context_of`.
        x: the feature before both.
        order: one of `ORDERS`; `gald.model.segmentor.Segmentor` has the formulas.
        add_twice: whether to add the context once more to the output of LD.

    Shape:
        context, x, result: (B, C, h, w)
    """

    def distributed(context: Tensor) -> Tensor:
        y = ld(context, x)
        return y + context if add_twice else y

    if order == "ga_ld":
        return distributed(context)
    if order == "parallel":
        return context + distributed(x) - x
    return _aggregated(ga, distributed(x))


def _aggregated(ga: Aggregate, x: Tensor) -> Tensor:
    context = ga(x)
    if context.shape != x.shape:
        raise ValueError(
            f"ga changed the shape from {tuple(x.shape)} to {tuple(context.shape)}; "
            "a GA module must keep the shape, see gald.model.ga"
        )
    return context
