"""The segmentation network: backbone, neck, reduce, GA, LD, head and auxiliary head."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.backbone import TimmBackbone
from gald.model.context import Order, check_order, context_of, run_slots
from gald.model.depthwise import fast_depthwise as make_depthwise_fast
from gald.model.depthwise import has_depthwise
from gald.model.idle import idle_parameters
from gald.model.layers import ConvNormAct
from gald.model.truth import reads_truth
from gald.options.ranges import Width


class SegOutput(NamedTuple):
    """Logits (B, K, h, w) below image resolution, and those of the auxiliary head or None."""

    logits: Tensor
    aux: Tensor | None


class Aggregated(NamedTuple):
    """Result of `Segmentor.aggregate`: the inputs of local distribution and of the head.

    Attributes:
        maps: all maps of the neck, finest first.
        x: the feature before aggregation, (B, C, h, w).
        context: the globally aggregated feature; x itself if local distribution comes first.
        aux: scores of the auxiliary head if the aggregation reads them, else None.
        truth: boundaries of the ground truth (B, 1, H, W) in [0, 1] if LD reads them, else None.
    """

    maps: tuple[Tensor, ...]
    x: Tensor
    context: Tensor
    aux: Tensor | None
    truth: Tensor | None


class Segmentor(nn.Module):
    """Segmentation network with interchangeable context modules.

    The forward pass follows the paper's title: aggregate globally, then distribute locally.
    All arms of an ablation keep the same convolutions around the two slots, so that a difference
    comes from the slots alone.

    Neck, head and auxiliary head are passed as factories, because their input widths and strides
    are known only after the backbone is built. Backbone, GA and LD are passed as modules; an LD
    that reads the maps is passed as a factory too.

    Args:
        backbone: image -> maps, with `channels` and `strides`.
        neck: factory `(in_channels, in_strides)` of a module maps -> maps.
        ga: global aggregation, see `gald.model.ga`.
        ld: local distribution, see `gald.model.ld`; a factory `(in_channels, in_strides)` if it
            reads the maps.
        head: factory `(in_channels, in_strides, num_classes)` of a module (maps, x) -> logits.
        aux_head: the same kind of factory for a module maps -> logits, or null for none.
        channels: width of the context slots.
        align_corners: align_corners of every resize in the model; the parts read it from here.
        num_classes: number of classes.
        order: `ga_ld` is the paper's: out = ld(ga(x), x). `ld_ga` distributes first:
            out = ga(ld(x, x)). `parallel` adds both changes to x: out = ga(x) + ld(x, x) - x.
        add_context_twice: whether to add the context once more to the output of LD, as the authors'
            code does and their figure does not.
        channels_last: store weights and maps with the channel dimension innermost. The sums are the
            same in another order; which layout is faster depends on the device and the network.
            `auto` does it on a CPU for the maps of a backbone with depth-wise convolutions. On a
            CPU with AVX2 the other parts train in the usual layout then: in channels_last the
            gradient of the weights of a 3x3 convolution takes twice the time.
        fast_depthwise: give the backbone's depth-wise convolutions a faster backward pass on a CPU,
            see `gald.model.depthwise`. Scores are the same; gradients differ by rounding.

    Attributes:
        image_channels: channels of the image: 3, or 4 if LD reads the ground truth, see
            `gald.model.truth`.

    Shape:
        image: (B, 3, H, W), uint8 or float in [0, 1] -> SegOutput

    Raises:
        ValueError: an option is unknown; GA reads the auxiliary head but there is none; the image
            is too small to train batch norm on.
    """

    def __init__(  # noqa: PLR0913  all parts of the network meet here
        self,
        backbone: TimmBackbone,
        neck: Callable[..., Any],
        ga: nn.Module,
        ld: nn.Module | Callable[..., nn.Module],
        head: Callable[..., nn.Module],
        aux_head: Callable[..., nn.Module] | None,
        channels: Width,
        align_corners: bool,
        num_classes: int,
        order: Order = "ga_ld",
        add_context_twice: bool = False,
        channels_last: bool | Literal["auto"] = False,
        fast_depthwise: bool = False,
    ) -> None:
        super().__init__()
        check_order(order)
        if channels_last not in (True, False, "auto"):
            raise ValueError(
                f"model.channels_last is {channels_last!r}; set model.channels_last to auto, true "
                "or false"
            )
        if extra_input(ga) == "aux" and aux_head is None:
            raise ValueError(
                f"{type(ga).__name__} reads the scores of the auxiliary head, but the model has "
                "none; set model/aux_head=default"
            )
        self.order = order
        self.add_context_twice = add_context_twice
        self.align_corners = align_corners
        self.backbone = backbone
        self.stride = max(backbone.strides)
        pyramid = neck(in_channels=backbone.channels, in_strides=backbone.strides)
        inputs = {"in_channels": pyramid.channels, "in_strides": pyramid.strides}
        self.neck: nn.Module = pyramid
        self.slot_stride: int = pyramid.strides[-1]
        self.reduce = ConvNormAct(pyramid.channels[-1], channels, 3)
        self.ga = ga
        self.ld = ld if isinstance(ld, nn.Module) else ld(**inputs)
        self.image_channels = 4 if reads_truth(self) else 3
        self.head = head(**inputs, num_classes=num_classes)
        self.aux_head = None if aux_head is None else aux_head(**inputs, num_classes=num_classes)
        if channels_last is True:  # maps take the layout of the first convolution's weights
            self.to(memory_format=torch.channels_last)
        self.channels_last_on_cpu = channels_last == "auto" and has_depthwise(backbone)
        if fast_depthwise:
            make_depthwise_fast(backbone)
        if not backbone.size_rule.last_uses_all:
            self.stop_idle_parameters()

    @property
    def trunk(self) -> Any:
        """The part that GA and LD are added to: the backbone."""
        return self.backbone

    def stop_idle_parameters(self) -> None:
        """Stop the training of parameters that no output depends on, as those of unread maps.

        A training on several devices waits for the gradient of every parameter that trains.
        """
        side = 16 * self.stride  # enough cells for the modules with the largest kernels
        for name in idle_parameters(self, (side, side)):
            self.get_parameter(name).requires_grad_(False)

    def aggregate(self, image: Tensor) -> Aggregated:
        """Compute everything up to local distribution."""
        self._check_size(image)
        image, truth = self._split(image)
        on_cpu = image.device.type == "cpu"
        if not (self.channels_last_on_cpu and on_cpu) or torch.compiler.is_exporting():
            return self.aggregate_maps(self.backbone(image), truth)
        image = image.contiguous(memory_format=torch.channels_last)  # maps take its layout
        maps = self.backbone(image)
        if self.training and torch.backends.cpu.get_cpu_capability() == "AVX2":
            maps = tuple(m.contiguous() for m in maps)
        return self.aggregate_maps(maps, truth)

    def aggregate_maps(self, maps: tuple[Tensor, ...], truth: Tensor | None = None) -> Aggregated:
        """Compute everything from the maps of the backbone up to local distribution.

        Args:
            maps: output of the backbone.
            truth: boundaries of the ground truth (B, 1, H, W) in [0, 1] if LD reads them.
        """
        maps = self.neck(maps)
        x = self.reduce(maps[-1])
        reads_aux = self.aux_head is not None and extra_input(self.ga) == "aux"
        aux = self.aux_head(maps) if reads_aux else None
        return Aggregated(maps, x, context_of(self._ga(aux), x, self.order), aux, truth)

    def distribution_map(self, parts: Aggregated) -> Tensor | None:
        """Return the map of local distribution, or None if it has none."""
        ld_map = getattr(self.ld, "distribution_map", None)
        if ld_map is None:
            return None
        context = parts.x if self.order == "parallel" else parts.context
        return ld_map(context, parts.x, *self._extra_ld_inputs(parts))

    def ld_map(self, image: Tensor) -> Tensor | None:
        """Return the map of local distribution for an image, or None if it has none."""
        return self.distribution_map(self.aggregate(image))

    def distribute(self, parts: Aggregated) -> Tensor:
        """Run local distribution and the head; return logits (B, K, h, w)."""
        extra = self._extra_ld_inputs(parts)
        y = run_slots(
            self._ga(parts.aux),
            lambda context, x: self.ld(context, x, *extra),
            parts.context,
            parts.x,
            self.order,
            self.add_context_twice,
        )
        return self.head(parts.maps, y)

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits; the auxiliary head runs only if GA reads it."""
        return self.distribute(self.aggregate(image))

    @override
    def forward(self, image: Tensor) -> SegOutput:
        return self.finish(self.aggregate(image))

    def finish(self, parts: Aggregated) -> SegOutput:
        """Run local distribution, the head and the auxiliary head."""
        aux = parts.aux
        if aux is None and self.aux_head is not None:
            aux = self.aux_head(parts.maps)
        return SegOutput(self.distribute(parts), aux)

    def _ga(self, aux: Tensor | None) -> Callable[[Tensor], Tensor]:
        return self.ga if aux is None else lambda x: self.ga(x, aux)

    def _extra_ld_inputs(self, parts: Aggregated) -> tuple[tuple[Tensor, ...] | Tensor, ...]:
        if parts.truth is not None:
            return (parts.truth,)
        return (parts.maps,) if extra_input(self.ld) == "maps" else ()

    def _split(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Separate the boundaries of the ground truth from the image, if LD reads them."""
        if self.image_channels == 3:
            return image, None
        if image.shape[1] != self.image_channels:
            raise ValueError(
                f"the image has {image.shape[1]} channels, but model/ld=oracle also reads the "
                "boundaries of the ground truth, which only gald train, gald eval and gald probe "
                "have; use another LD to predict, export or inspect"
            )
        truth = image[:, 3:]
        return image[:, :3], truth if truth.is_floating_point() else truth.float() / 255

    def _check_size(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        stride = self.stride
        cells = image.shape[0] * -(-height // stride) * -(-width // stride)
        if self.training and cells == 1:
            raise ValueError(
                f"one image of {height}x{width} px at stride {stride} is a single cell, and batch "
                "norm cannot train on it; raise the crop size or data.global_batch_size"
            )


def extra_input(module: nn.Module) -> str | None:
    """Return the extra input that a GA or LD reads: `aux`, `maps` or None."""
    return getattr(module, "reads", None)
