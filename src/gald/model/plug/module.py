"""A network with GA and LD inside, for use in Python: `gald.plug`."""

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from gald.model.context import Order
from gald.model.plug.block import refuse_extra_inputs, run_block, width_convolutions
from gald.model.plug.hook import BlockHook
from gald.model.plug.outputs import feature_of
from gald.model.plug.places import Place


class PluggedModule(nn.Module):
    """A network of yours with GA and LD behind one of its submodules.

    It takes what the network takes and returns what the network returns. The network trains and is
    saved inside it, under `network.`; its own code and the names of its weights stay as they are.

    Args:
        network: the network; its first argument is the image (B, 3, H, W).
        at: name of the submodule.
        place: how its output is laid out.
        ga: global aggregation of width `channels`.
        ld: local distribution of the same width.
        channels: width of the slots.
        order: see `gald.model.segmentor.Segmentor`.

    Raises:
        ValueError: GA or LD reads more than the feature.
    """

    def __init__(
        self,
        network: nn.Module,
        at: str,
        place: Place,
        ga: nn.Module,
        ld: nn.Module,
        channels: int,
        order: Order = "ga_ld",
    ) -> None:
        super().__init__()
        refuse_extra_inputs(ga, ld)
        self.network = network
        self.ga = ga
        self.ld = ld
        self.reduce, self.expand = width_convolutions(place.channels, channels)
        self.order = order
        self.add_context_twice = False
        self.slot_stride = place.stride
        self.hook = BlockHook(network, at, place, self._block)

    @override
    def forward(self, *arguments: Any, **named: Any) -> Any:
        image = feature_of([*reversed([*arguments, *named.values()])])
        size = () if image is None else image.shape[-2:]
        return self.hook.run(size, lambda: self.network(*arguments, **named))

    def _block(self, x: Tensor) -> Tensor:
        return run_block(self, x)
