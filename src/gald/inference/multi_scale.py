"""Multi-scale and flip inference: mean over scaled and mirrored images."""

import copy
from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from gald.inference.base import Inference, ScoredView
from gald.inference.precision import Precision, check_precision
from gald.model.layers import resizing
from gald.model.network import Network
from gald.options.ranges import Length, Scale


class MultiScaleFlip(Inference):
    """Mean probability over several scales of the image, and over their mirror images.

    Papers report this as "ms + flip". At each scale `over` computes the scores; they are resized to
    the image before the softmax.

    Args:
        over: inference mode for one scale, `FullImage` or `Slide`.
        scales: factors of height and width; sides are rounded to whole pixels, halves up, and at
            least one.
        flip: also average over the left-right mirrored image.
        align_corners: how scores are resized back; set to the model's value.
        precision: precision of `over`, if it has none of its own: `bf16`, or null for the
            precision of the trainer.

    Shape:
        model, image (B, 3, H, W) -> (B, K, H, W)

    Raises:
        ValueError: there is no scale, or a scale is not positive.
    """

    def __init__(
        self,
        over: Inference,
        scales: Annotated[Sequence[Scale], Length(1)] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        flip: bool = True,
        align_corners: bool = False,
        precision: Precision = None,
    ) -> None:
        if not scales or min(scales) <= 0:
            raise ValueError(
                f"scales are {list(scales)}; give positive factors, as in scales=[0.75,1.0,1.25]"
            )
        self.precision = check_precision(precision)
        self.over = over
        if self.precision is not None:
            self.over = copy.copy(over)  # the caller's has its own precision
            self.over.precision = self.precision
        self.scales = tuple(scales)
        self.flip = flip
        self.align_corners = align_corners

    @override
    def views(self, model: Network, image: Tensor) -> list[ScoredView]:
        views = []
        for scale in self.scales:
            scaled = _scale(image, scale)
            views += self._resize_back(self.over.views(model, scaled), image)
            if self.flip:
                mirrored = self.over.views(model, scaled.flip(-1))
                mirrored = [view._replace(columns=view.columns.flip(0)) for view in mirrored]
                views += self._resize_back(mirrored, image)
        return views

    def at_network_size(self, image: Tensor) -> Tensor:
        """Resize the image to the scale nearest to 1."""
        return self.over.at_network_size(
            _scale(image, min(self.scales, key=lambda scale: abs(scale - 1)))
        )

    def _resize_back(self, views: list[ScoredView], image: Tensor) -> list[ScoredView]:
        height, width = image.shape[-2:]
        return [
            ScoredView(logits, self._resize(rows, height), self._resize(columns, width))
            for logits, rows, columns in views
        ]

    def _resize(self, matrix: Tensor, size: int) -> Tensor:
        back = resizing(len(matrix), size, self.align_corners)
        return (back.double() @ matrix.double()).float()


def _scale(image: Tensor, scale: float) -> Tensor:
    size = [max(1, int(side * scale + 0.5)) for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    if not image.is_floating_point():
        image = image.float() / 255  # so that the result is not rounded to whole grey values
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
