"""The hook that puts a block behind a submodule of a network."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gald.model.plug.outputs import feature_of, with_feature
from gald.model.plug.places import Place


class BlockHook:
    """Replaces the output of a submodule by a function of it, whenever the network runs.

    The network's code and the names of its weights stay as they are.

    Args:
        network: the network.
        at: name of the submodule.
        place: how its output is laid out.
        block: (B, C, h, w) -> (B, C, h, w).

    """

    def __init__(
        self, network: nn.Module, at: str, place: Place, block: Callable[[Tensor], Tensor]
    ) -> None:
        self.at = at
        self.place = place
        self.block = block
        self.image_size: Sequence[int] = ()
        self.is_on = True
        self.has_run = False
        network.get_submodule(at).register_forward_hook(self._insert)

    def run(self, image_size: Sequence[int], call: Callable[[], Any]) -> Any:
        """Pass an image of this height and width through the network, and return its result.

        Raises:
            ValueError: the submodule did not run, or another one has taken its place.
        """
        self.image_size, self.has_run = image_size, not self.is_on
        result = call()
        if not (self.has_run or torch.compiler.is_compiling()):
            raise ValueError(
                f"GA and LD did not run: model.at={self.at} was replaced after the network was "
                "built, or does not run for this input; choose another place, such as one that is "
                "no batch norm"
            )
        return result

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
        self.has_run = True
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
