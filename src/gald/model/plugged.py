"""A host network with GA and LD at one of its layers: `model=plugged`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gald.model.context import Order, check_order
from gald.model.idle import idle_parameters
from gald.model.image_size import round_up
from gald.model.layers import resize
from gald.model.plug.block import refuse_extra_inputs, run_block, width_convolutions
from gald.model.plug.hook import BlockHook
from gald.model.plug.places import place_of, probe
from gald.model.segmentor import SegOutput
from gald.options.ranges import Width

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Plugged(nn.Module):
    """A network of somebody else with GA and LD behind one of its submodules.

    The host is probed when it is built: which image sizes it takes, which of its submodules return
    a map, and whether its logits depend on that map. Images of other sizes get black pixels at the
    right and at the bottom, and the logits are cut back. With `ga=none ld=none`, and slots of the
    place's width, the logits are those of the host, bit by bit.

    Args:
        host: factory `(num_classes)` of the host, see `gald.model.host`.
        ga: global aggregation, see `gald.model.ga`.
        ld: local distribution, see `gald.model.ld`.
        channels: width of the slots. If it is not that of the place, a convolution before them
            reduces the feature, one after them expands it, and the result is added to the feature;
            the last convolution starts with zeros.
        num_classes: number of classes.
        at: name of the host's submodule; None is the place that the host names.
        align_corners: align_corners of the resizes of logits to the image.
        order: see `gald.model.segmentor.Segmentor`.
        add_context_twice: see `gald.model.segmentor.Segmentor`.

    Shape:
        image: (B, 3, H, W), uint8 or float in [0, 1] -> SegOutput; logits are at the host's stride

    Raises:
        ValueError: the host does not run on images of several sizes, has no such place, or GA or
            LD reads more than the feature.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        host: Callable[..., nn.Module],
        ga: nn.Module,
        ld: nn.Module,
        channels: Width,
        num_classes: int,
        at: str | None = None,
        align_corners: bool = False,
        order: Order = "ga_ld",
        add_context_twice: bool = False,
    ) -> None:
        super().__init__()
        check_order(order)
        refuse_extra_inputs(ga, ld)
        self.host: Any = host(num_classes=num_classes)
        network, name = network_of(self.host), name_of(self.host)
        at = at or getattr(self.host, "at", None)
        found = probe(network, lambda image: logits_of(self.host(image)).logits, name, at)
        place = place_of(found.places, at, name)
        assert at is not None, "a place was found"
        self.ga = ga
        self.ld = ld
        self.reduce, self.expand = width_convolutions(place.channels, channels)
        self.align_corners = align_corners
        self.order = order
        self.add_context_twice = add_context_twice
        self.multiple = found.multiple
        self.logits_stride = found.stride
        self.stride = self.slot_stride = place.stride
        self.hook = BlockHook(network, at, place, self._block)
        for key, default in IMAGENET.items():
            value = torch.tensor(getattr(self.host, key, default), dtype=torch.float32)
            self.register_buffer(key, value.view(1, 3, 1, 1), persistent=False)
        self.stop_idle_parameters()

    image_channels = 3

    @property
    def trunk(self) -> Any:
        """The part that GA and LD are added to: the host."""
        return self.host

    def stop_idle_parameters(self) -> None:
        """Stop the training of parameters that no output depends on."""
        side = round_up(16 * self.stride, self.multiple)
        for name in idle_parameters(self, (side, side)):
            self.get_parameter(name).requires_grad_(False)

    @override
    def forward(self, image: Tensor) -> SegOutput:
        size = image.shape[-2:]
        image = image if image.is_floating_point() else image.float() / 255
        if self.multiple > 1:
            right, below = (round_up(side, self.multiple) - side for side in (size[1], size[0]))
            image = F.pad(image, (0, right, 0, below))
        x = (image - self.mean) / self.std
        out = logits_of(self.hook.run(image.shape[-2:], lambda: self.host(x)))
        if self.multiple == 1:
            return out
        h, w = (-(-side // self.logits_stride) for side in size)
        cut = out.logits[..., :h, :w]
        aux = None if out.aux is None else resize(out.aux, out.logits.shape[-2:])[..., :h, :w]
        return SegOutput(cut, aux)

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits."""
        return self(image).logits

    def ld_map(self, image: Tensor) -> Tensor | None:
        """Return the map of local distribution for an image, or None if it has none."""
        if not hasattr(self.ld, "distribution_map"):
            return None
        maps: list[Tensor] = []
        note = self.ld.register_forward_hook(
            lambda ld, inputs, output: maps.append(ld.distribution_map(*inputs))
        )
        try:
            self(image)
        finally:
            note.remove()
        return maps[-1]

    def host_alone(self, image: Tensor) -> Any:
        """Pass a normalised image through the host without GA and LD."""
        with self.hook.off():
            return self.host(image)

    def _block(self, x: Tensor) -> Tensor:
        return run_block(self, x)


def network_of(host: Any) -> nn.Module:
    """Return the network inside a host, which has the names of places."""
    network = getattr(host, "network", None)
    return network if isinstance(network, nn.Module) else host


def name_of(host: Any) -> str:
    """Return the name of a host for messages."""
    return str(getattr(host, "name", type(host).__name__))


def logits_of(output: Any) -> SegOutput:
    """Return the logits in what a network returns: a tensor, a sequence or a mapping.

    The logits are the first tensor of a sequence, or the entry `logits` or `out` of a mapping; an
    entry `aux` of a mapping has those of an auxiliary head.

    Raises:
        ValueError: there are none.
    """
    if isinstance(output, SegOutput):
        return output
    aux = None
    if isinstance(output, Mapping):
        aux = output.get("aux")
        output = next((output[key] for key in ("logits", "out") if key in output), None)
    elif isinstance(output, list | tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise ValueError(
            f"the host returns {type(output).__name__}, not logits (B, K, h, w), a sequence that "
            "starts with them, or a mapping with the key logits or out"
        )
    return SegOutput(output, aux)
