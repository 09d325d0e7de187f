"""The hook that puts a block behind a submodule of a network."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gald.model.plug.outputs import feature_of, with_feature
from gald.model.plug.places import Place


class Socket:
    """Replaces the output of a submodule by a function of it, whenever the network runs.

    The network's code and the names of its weights stay as they are.

    Args:
        network: the network.
        at: name of the submodule.
        place: how its output is laid out.
        block: (B, C, h, w) -> (B, C, h, w).

    Attributes:
        image_size: height and width of the image that the network gets; set before each pass.
    """

    def __init__(
        self, network: nn.Module, at: str, place: Place, block: Callable[[Tensor], Tensor]
    ) -> None:
        self.at = at
        self.place = place
        self.block = block
        self.image_size: Sequence[int] = ()
        self.is_on = True
        network.get_submodule(at).register_forward_hook(self._insert)

    @contextmanager
    def off(self) -> Generator[None]:
        """Leave the network as it was inside a `with` block."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def _insert(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not self.is_on:
            return output
        feature = feature_of(output)
        if feature is None:
            raise ValueError(f"model.at={self.at} returned no map; choose another place")
        return with_feature(output, feature, self._changed(feature))

    def _changed(self, feature: Tensor) -> Tensor:
        layout, prefix = self.place.layout, self.place.prefix
        if layout == "map":
            return self.block(feature)
        if layout == "channels_last":
            return self.block(feature.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        first, tokens = feature.split([prefix, feature.shape[1] - prefix], 1)
        cells = [-(-side // self.place.stride) for side in self.image_size]
        x = tokens.transpose(1, 2).unflatten(2, cells)
        changed = self.block(x).flatten(2).transpose(1, 2)
        return changed if prefix == 0 else torch.cat([first, changed], 1)
