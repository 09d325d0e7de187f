"""The wiring: backbone, neck, reduce, global aggregation, local distribution, head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.backbone import TimmBackbone
from gald.model.layers import ConvNormAct

_ORDERS = ("ga_ld", "ld_ga", "parallel")


class SegOutput(NamedTuple):
    """Class scores (B, K, h, w) below image resolution, and the auxiliary head's or None."""

    logits: Tensor
    aux: Tensor | None


class Aggregated(NamedTuple):
    """What local distribution is given, and what was computed on the way.

    Attributes:
        maps: all maps of the neck, finest first.
        x: the feature before aggregation, (B, C, h, w).
        context: what local distribution distributes; x itself where it comes first.
        aux: scores of the auxiliary head, where the aggregation reads them.
    """

    maps: tuple[Tensor, ...]
    x: Tensor
    context: Tensor
    aux: Tensor | None


class Segmentor(nn.Module):
    """A segmentation network whose context modules are interchangeable parts.

    The forward pass reads like the paper's title: aggregate globally, then distribute locally.
    All arms of an ablation keep the same convolutions around the two slots, so that a difference
    comes from the slots alone.

    Neck, head and auxiliary head are passed as factories, because their input widths and strides
    are known only once the backbone is built; backbone, GA and LD are passed built, an LD that
    reads the maps as a factory too.

    Args:
        backbone: image -> maps, with `channels` and `strides`.
        neck: factory `(in_channels, in_strides)` of a module maps -> maps.
        ga: global aggregation, see `gald.model.ga`.
        ld: local distribution, see `gald.model.ld`; a factory `(in_channels, in_strides)` where
            it reads the maps.
        head: factory `(in_channels, in_strides, num_classes)` of a module (maps, x) -> logits.
        aux_head: the same for a module maps -> logits, or null for none.
        channels: width of the context slots.
        align_corners: how every resize in the model maps corners; the parts read it from here.
        num_classes: classes to score.
        order: `ga_ld` is the paper's: out = ld(ga(x), x). `ld_ga` distributes first:
            out = ga(ld(x, x)). `parallel` adds what both change: out = ga(x) + ld(x, x) - x.
        add_context_twice: whether to add the context to what LD returns once more, as the authors'
            code does and their figure does not.
        channels_last: lay weights and maps out with the channel dimension innermost. The same
            sums in another order: which layout is faster depends on the device and the network.

    Shape:
        image: (B, 3, H, W), uint8 or float in [0, 1] -> SegOutput

    Raises:
        ValueError: an unknown order; an aggregation that reads the auxiliary head
            where there is none; an image smaller than one stride, or too small to train batch norm
            on.
    """

    def __init__(  # noqa: PLR0913  the whole network in one place
        self,
        backbone: TimmBackbone,
        neck: Callable[..., Any],
        ga: nn.Module,
        ld: nn.Module | Callable[..., nn.Module],
        head: Callable[..., nn.Module],
        aux_head: Callable[..., nn.Module] | None,
        channels: int,
        align_corners: bool,
        num_classes: int,
        order: str = "ga_ld",
        add_context_twice: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if order not in _ORDERS:
            raise ValueError(f"model.order is {order!r}; choose one of {', '.join(_ORDERS)}")
        if _reads(ga) == "aux" and aux_head is None:
            raise ValueError(
                f"{type(ga).__name__} reads the scores of the auxiliary head, which "
                "model/aux_head=none leaves out; take model/aux_head=default"
            )
        self.order = order
        self.add_context_twice = add_context_twice
        self.align_corners = align_corners
        self.backbone = backbone
        self.stride = max(backbone.strides)
        pyramid = neck(in_channels=backbone.channels, in_strides=backbone.strides)
        seen = {"in_channels": pyramid.channels, "in_strides": pyramid.strides}
        self.neck: nn.Module = pyramid
        self.reduce = ConvNormAct(pyramid.channels[-1], channels, 3)
        self.ga = ga
        self.ld = ld if isinstance(ld, nn.Module) else ld(**seen)
        self.head = head(**seen, num_classes=num_classes)
        self.aux_head = None if aux_head is None else aux_head(**seen, num_classes=num_classes)
        if channels_last:  # the maps follow the weights of the first convolution
            self.to(memory_format=torch.channels_last)

    def aggregate(self, image: Tensor) -> Aggregated:
        """Everything up to local distribution: what its map is computed from."""
        self._check_size(image)
        maps = self.neck(self.backbone(image))
        x = self.reduce(maps[-1])
        reads_aux = self.aux_head is not None and _reads(self.ga) == "aux"
        aux = self.aux_head(maps) if reads_aux else None
        context = x if self.order == "ld_ga" else self._aggregate(x, aux)
        return Aggregated(maps, x, context, aux)

    def distribution_map(self, parts: Aggregated) -> Tensor | None:
        """The map by which local distribution decides, or None where it has none."""
        ld_map = getattr(self.ld, "distribution_map", None)
        if ld_map is None:
            return None
        context = parts.x if self.order == "parallel" else parts.context
        return ld_map(context, parts.x, *self._maps(parts))

    def distribute(self, parts: Aggregated) -> Tensor:
        """The rest: local distribution and the head, to logits (B, K, h, w)."""
        if self.order == "ga_ld":
            y = self._distribute(parts.context, parts)
        elif self.order == "parallel":
            y = parts.context + self._distribute(parts.x, parts) - parts.x
        else:
            y = self._aggregate(self._distribute(parts.x, parts), parts.aux)
        return self.head(parts.maps, y)

    def logits(self, image: Tensor) -> Tensor:
        """Class scores alone, without the cost of the auxiliary head unless GA reads it."""
        return self.distribute(self.aggregate(image))

    @override
    def forward(self, image: Tensor) -> SegOutput:
        parts = self.aggregate(image)
        aux = parts.aux
        if aux is None and self.aux_head is not None:
            aux = self.aux_head(parts.maps)
        return SegOutput(self.distribute(parts), aux)

    def _aggregate(self, x: Tensor, aux: Tensor | None) -> Tensor:
        context = self.ga(x) if aux is None else self.ga(x, aux)
        if context.shape != x.shape:
            raise ValueError(
                f"ga turned {tuple(x.shape)} into {tuple(context.shape)}; "
                "a GA module must keep the shape, see gald.model.ga"
            )
        return context

    def _distribute(self, context: Tensor, parts: Aggregated) -> Tensor:
        y = self.ld(context, parts.x, *self._maps(parts))
        return y + context if self.add_context_twice else y

    def _maps(self, parts: Aggregated) -> tuple[tuple[Tensor, ...], ...]:
        return (parts.maps,) if _reads(self.ld) == "maps" else ()

    def _check_size(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        stride = self.stride
        if min(height, width) < stride:
            raise ValueError(
                f"image of {height}x{width} px is smaller than the backbone's stride {stride}; "
                f"give images of at least {stride}x{stride} px"
            )
        cells = image.shape[0] * -(-height // stride) * -(-width // stride)
        if self.training and cells == 1:
            raise ValueError(
                f"one image of {height}x{width} px at stride {stride} is a single cell, on which "
                "batch norm cannot train; raise the crop size or data.global_batch_size"
            )


def _reads(module: nn.Module) -> str | None:
    """What a GA or LD is given beyond the usual: `aux`, `maps` or nothing."""
    return getattr(module, "reads", None)
