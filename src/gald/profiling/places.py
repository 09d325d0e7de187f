"""Table of the places of a host where GA and LD fit, with their cost there."""

from collections.abc import Sequence

import torch
from hydra.errors import InstantiationException
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode

from gald.config import compose
from gald.model.build import context_module
from gald.model.host.fill import places_of
from gald.model.plug.block import refuse_extra_inputs
from gald.model.plug.places import Place
from gald.profiling.flops import MacCounter, count_params

# A map is too narrow or too small for a module.
_DOES_NOT_FIT = (ValueError, InstantiationException)
DEPTH = 2  # of names that are shown without those inside them


def places_table(
    host: str, words: Sequence[str], slots: tuple[str, str], size: tuple[int, int], inner: bool
) -> tuple[Table, str]:
    """Return the table and a sentence below it.

    Args:
        host: option of model/host.
        words: further words of `gald train`.
        slots: options of model/ga and model/ld.
        size: height and width of the image for the costs.
        inner: whether to show submodules of submodules too.

    Raises:
        ValueError: there is no such option, or the host cannot be built or probed.
    """
    ga, ld = slots
    refuse_extra_inputs(
        *(context_module(slot, one, 64, {}) for slot, one in zip(("ga", "ld"), slots, strict=True))
    )
    model = compose("train", ["model=plugged", f"model/host={host}", *words]).model
    places, own, name = places_of(model.host)
    table = Table(title=f"{name}: places for model.at, and the cost of {ga} and {ld} there")
    table.add_column("place", overflow="fold")
    for column in ("channels", "stride", "layout", "params", "GMACs"):
        table.add_column(column, justify="right")
    shown = {k: p for k, p in places.items() if inner or k.count(".") < DEPTH or k == own}
    for key, place in shown.items():
        try:
            params, gmacs = _cost(place, ga, ld, size)
            cost = f"{params:,}", f"{gmacs:.2f}"
        except _DOES_NOT_FIT:
            cost = "-", "-"
        mark = " (default)" if key == own else ""
        table.add_row(
            key + mark,
            *map(str, (place.channels, place.stride, place.layout.replace("_", " "))),
            *cost,
        )
    hidden = len(places) - len(shown)
    more = f"; {hidden} more with --all" if hidden else ""
    train = f"gald train model=plugged model/host={host} model.at={own or next(iter(places))}"
    return table, (
        f"for one image of {size[0]}x{size[1]} px, in the place's own width{more}. Train with: "
        f"{train} model/ga={ga} model/ld={ld}"
    )


def _cost(place: Place, ga: str, ld: str, size: tuple[int, int]) -> tuple[int, float]:
    """Return parameters and GMACs of both modules, from shapes alone."""
    cells = [-(-side // place.stride) for side in size]
    with FakeTensorMode(), torch.no_grad(), MacCounter() as counter:
        aggregate = context_module("ga", ga, place.channels, {}).eval()
        distribute = context_module("ld", ld, place.channels, {}).eval()
        x = torch.empty(1, place.channels, *cells)
        distribute(aggregate(x), x)
    return count_params(aggregate) + count_params(distribute), counter.macs / 1e9
