"""The wiring: backbone, neck, reduce, global aggregation, local distribution, head."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from gald.models.backbone import TimmBackbone
from gald.modules.layers import ConvNormAct


class SegOutput(NamedTuple):
    """Class scores (B, K, h, w) below image resolution, and the auxiliary head's or None."""

    logits: Tensor
    aux: Tensor | None


class Aggregated(NamedTuple):
    """What local distribution is given: all maps, x before and context after aggregation."""

    maps: tuple[Tensor, ...]
    x: Tensor
    context: Tensor


class Segmentor(nn.Module):
    """A segmentation network whose context modules are interchangeable parts.

    The forward pass reads like the paper's title: aggregate globally, then distribute locally.
    All arms of an ablation keep the same convolutions around the two slots, so that a difference
    comes from the slots alone.

    Neck, head and auxiliary head are passed as factories, because their input widths and strides
    are known only once the backbone is built; backbone, GA and LD are passed built.

    Args:
        backbone: image -> maps, with `channels` and `strides`.
        neck: factory `(in_channels, in_strides)` of a module maps -> maps.
        ga: global aggregation, see `gald.modules.ga`.
        ld: local distribution, see `gald.modules.ld`.
        head: factory `(in_channels, in_strides, num_classes)` of a module (maps, x) -> logits.
        aux: the same for a module maps -> logits, or null for none.
        channels: width of the context slots.
        align_corners: how every resize in the model maps corners; the parts read it from here.
        num_classes: classes to score.

    Shape:
        image: (B, 3, H, W), uint8 or float in [0, 1] -> SegOutput

    Raises:
        ValueError: the image is smaller than one stride, or too small to train batch norm on.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        neck: Callable[..., Any],
        ga: nn.Module,
        ld: nn.Module,
        head: Callable[..., nn.Module],
        aux: Callable[..., nn.Module] | None,
        channels: int,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.backbone = backbone
        self.stride = max(backbone.strides)
        pyramid = neck(in_channels=backbone.channels, in_strides=backbone.strides)
        seen = {"in_channels": pyramid.channels, "in_strides": pyramid.strides}
        self.neck: nn.Module = pyramid
        self.reduce = ConvNormAct(pyramid.channels[-1], channels, 3)
        self.ga = ga
        self.ld = ld
        self.head = head(**seen, num_classes=num_classes)
        self.aux = None if aux is None else aux(**seen, num_classes=num_classes)

    def aggregate(self, image: Tensor) -> Aggregated:
        """Everything up to local distribution: what its affinity map is computed from."""
        self._check_size(image)
        maps = self.neck(self.backbone(image))
        x = self.reduce(maps[-1])
        context = self.ga(x)
        if context.shape != x.shape:
            raise ValueError(
                f"ga turned {tuple(x.shape)} into {tuple(context.shape)}; "
                "a GA module must keep the shape, see gald.modules.ga"
            )
        return Aggregated(maps, x, context)

    def distribute(self, parts: Aggregated) -> Tensor:
        """The rest: local distribution and the head, to logits (B, K, h, w)."""
        return self.head(parts.maps, self.ld(parts.context, parts.x))

    def logits(self, image: Tensor) -> Tensor:
        """Class scores alone, without the cost of the auxiliary head."""
        return self.distribute(self.aggregate(image))

    def forward(self, image: Tensor) -> SegOutput:  # noqa: D102
        parts = self.aggregate(image)
        aux = None if self.aux is None else self.aux(parts.maps)
        return SegOutput(self.distribute(parts), aux)

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
