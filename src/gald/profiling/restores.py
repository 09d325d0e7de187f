"""Whether a local distribution can give back what a global aggregation removed."""

import torch
from torch import Tensor, nn

_SIDE = 64  # cells of a map; its middle is out of reach of what modules do at borders
_MIDDLE = slice(28, 36)


@torch.no_grad()
def restores_x(ld: nn.Module, channels: int, *extra: Tensor | tuple[Tensor, ...]) -> bool:
    """Return whether x shows in the output of an LD where the context is the same everywhere.

    Such a context holds nothing of a place, as after a GA that averaged it away. An LD that scales,
    moves or filters the context cannot restore the place then; one that mixes in x can.

    Args:
        ld: the module, in evaluation mode.
        channels: width of its feature maps.
        extra: further inputs, for LDs that read more than context and x.
    """
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1, channels, 1, 1, generator=generator).expand(-1, -1, _SIDE, _SIDE)
    one, other = (torch.randn(1, channels, _SIDE, _SIDE, generator=generator) for _ in range(2))
    change = ld(context, one, *extra) - ld(context, other, *extra)
    return bool(change[..., _MIDDLE, _MIDDLE].abs().mean() > 1e-3)
