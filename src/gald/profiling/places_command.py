"""`gald modules`: the places of a host network where GA and LD fit."""

import torch
from hydra.errors import InstantiationException
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode

from gald.config import CONF_DIR, compose, options_of
from gald.model.build import context_module
from gald.model.host.fill import places_of
from gald.model.plug.places import Place
from gald.profiling.flops import MacCounter, count_params

DEPTH = 2  # of names that are shown without --all


def main(
    host: str | None = None,
    /,
    *words: str,
    ga: str = "psp",
    ld: str = "affinity",
    size: tuple[int, int] = (512, 1024),
    all: bool = False,
) -> None:
    """List the places of a host network where GA and LD fit, with their cost there.

    Args:
        host: option of model/host, as unet; none lists them
        words: further words of gald train, as model.host.encoder=resnet50
        ga: option of model/ga
        ld: option of model/ld
        size: height and width of the image
        all: also show submodules of submodules
    """
    say = Console(markup=False, emoji=False).print
    if host is None:
        say(_hosts())
        return
    if host not in options_of("model/host").split(", "):
        raise ValueError(f"there is no host {host!r}; choose one of {options_of('model/host')}")
    model = compose("train", ["model=plugged", f"model/host={host}", *words]).model
    places, own, name = places_of(model.host)
    table = Table(title=f"{name}: places for model.at, and the cost of {ga} and {ld} there")
    table.add_column("place", overflow="fold")
    for column in ("channels", "stride", "layout", "params", "GMACs"):
        table.add_column(column, justify="right")
    shown = {k: p for k, p in places.items() if all or k.count(".") < DEPTH or k == own}
    for key, place in shown.items():
        try:
            params, gmacs = _cost(place, ga, ld, size)
            cost = f"{params:,}", f"{gmacs:.2f}"
        except (
            ValueError,
            InstantiationException,
        ):  # too narrow or too small a map for one of them
            cost = "-", "-"
        mark = " (default)" if key == own else ""
        table.add_row(
            key + mark,
            *map(str, (place.channels, place.stride, place.layout.replace("_", " "))),
            *cost,
        )
    say(table)
    hidden = len(places) - len(shown)
    more = f"; {hidden} more with --all" if hidden else ""
    train = f"gald train model=plugged model/host={host} model.at={own or next(iter(places))}"
    say(
        f"for one image of {size[0]}x{size[1]} px, in the place's own width{more}. Train with: "
        f"{train} model/ga={ga} model/ld={ld}",
        soft_wrap=True,
    )


def _hosts() -> Table:
    """Return a table of the options of model/host, with the first line of each file."""
    table = Table("host", "network", title="gald modules HOST lists its places")
    for path in sorted((CONF_DIR / "model" / "host").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(path.stem, first.removeprefix("# "))
    return table


def _cost(place: Place, ga: str, ld: str, size: tuple[int, int]) -> tuple[int, float]:
    """Return parameters and GMACs of both modules, from shapes alone."""
    cells = [-(-side // place.stride) for side in size]
    with FakeTensorMode(), torch.no_grad(), MacCounter() as counter:
        aggregate = context_module("ga", ga, place.channels, {}).eval()
        distribute = context_module("ld", ld, place.channels, {}).eval()
        x = torch.empty(1, place.channels, *cells)
        distribute(aggregate(x), x)
    return count_params(aggregate) + count_params(distribute), counter.macs / 1e9
