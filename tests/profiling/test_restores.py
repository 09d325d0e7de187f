"""What `restores x` says of an LD holds when it is trained to give x back."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from gald.config import CONF_DIR
from gald.profiling.restores import restores_x

CHANNELS = 8
LDS = sorted(path.stem for path in (CONF_DIR / "model" / "ld").glob("*.yaml"))


def build(name):
    torch.manual_seed(0)
    ld = OmegaConf.load(CONF_DIR / "model" / "ld" / f"{name}.yaml")
    node = OmegaConf.create(
        {"model": {"channels": CHANNELS, "align_corners": False, "ld": ld}}
    ).model.ld
    module = instantiate(node)
    if isinstance(module, nn.Module):
        return module
    return module(in_channels=(4, CHANNELS), in_strides=(4, 8))


def extra(module, side):
    reads = getattr(module, "reads", None)
    if reads == "maps":
        return ((torch.randn(1, 4, 2 * side, 2 * side), torch.randn(1, CHANNELS, side, side)),)
    return (torch.rand(1, 1, side, side),) if reads == "truth" else ()


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", LDS)
def test_training_gives_x_back_exactly_where_the_table_says_so(name):
    module = build(name)
    says = restores_x(module.eval(), CHANNELS, *extra(module, 64))
    read_out = nn.Conv2d(CHANNELS, CHANNELS, 1)
    side = 16
    x = torch.randn(2, CHANNELS, side, side)
    context = torch.randn(2, CHANNELS, 1, 1).expand_as(x)
    more = [
        tuple(t.expand(2, -1, -1, -1) for t in given)
        if isinstance(given, tuple)
        else given.expand(2, -1, -1, -1)
        for given in extra(module, side)
    ]
    optimizer = torch.optim.Adam([*module.parameters(), *read_out.parameters()], 0.03)
    middle = slice(5, 11)
    for _ in range(50):
        error = (read_out(module(context, x, *more)) - x)[..., middle, middle].square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert (error.item() < 0.5) is says, f"{error.item():.2f} of the variance is left"
