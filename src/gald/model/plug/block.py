"""GA and LD as one block, with convolutions around them where their width is another."""

from typing import Any, Protocol

from torch import Tensor, nn

from gald.model.context import Order, context_of, run_slots
from gald.model.layers import ConvNormAct


class Slots(Protocol):
    """What `run_block` needs of a network.

    Attributes:
        ga: global aggregation.
        ld: local distribution.
        reduce: convolution to the width of the slots; None if they have that of the place.
        expand: convolution back to the width of the place; None likewise.
        order: see `gald.model.segmentor.Segmentor`.
        add_context_twice: see `gald.model.segmentor.Segmentor`.
    """

    ga: Any
    ld: Any
    reduce: nn.Module | None
    expand: nn.Module | None
    order: Order
    add_context_twice: bool


def width_convolutions(place: int, width: int) -> tuple[nn.Module | None, nn.Module | None]:
    """Return the convolutions before and after slots of another width than their place.

    The last one starts with zeros, so that a trained network starts as it was.
    """
    if width == place:
        return None, None
    expand = nn.Conv2d(width, place, 1)
    nn.init.zeros_(expand.weight)
    nn.init.zeros_(expand.bias)  # ty: ignore[invalid-argument-type]
    return ConvNormAct(place, width), expand


def run_block(slots: Slots, x: Tensor) -> Tensor:
    """Aggregate and distribute a feature.

    With slots of the place's width the result is theirs. Otherwise it is
    x + expand(slots(reduce(x))).

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """
    y = x if slots.reduce is None else slots.reduce(x)
    context = context_of(slots.ga, y, slots.order)
    y = run_slots(slots.ga, slots.ld, context, y, slots.order, slots.add_context_twice)
    return y if slots.expand is None else x + slots.expand(y)


def refuse_extra_inputs(ga: nn.Module, ld: object) -> None:
    """Refuse modules that read more than the feature of their slot."""
    for slot, module in (("ga", ga), ("ld", ld)):
        if not isinstance(module, nn.Module) or getattr(module, "reads", None):
            name = getattr(module, "func", type(module)).__name__
            raise ValueError(
                f"{name} also reads other maps or scores of gald's own network, which a host "
                f"network does not have; choose another model/{slot}"
            )
