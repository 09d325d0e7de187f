"""The mean over sizes of the image and its mirror images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from gald.inference.base import Inference, ScoredView, resizing
from gald.model.segmentor import Segmentor


class MultiScaleFlip(Inference):
    """Averages the probabilities over several sizes of the image, and over their mirror images.

    What papers report as "ms + flip". At each size the scores are those that `over` gives for an
    image of that size; they are resized to the image before the softmax.

    Args:
        over: how an image of one size is scored, `FullImage` or `Slide`.
        scales: factors of height and width; sides are rounded to whole pixels, halves up.
        flip: whether to average with the left-right mirrored image, too.
        align_corners: how scores are resized back; set to what the model uses.

    Shape:
        model, image (B, 3, H, W) -> (B, K, H, W)

    Raises:
        ValueError: there is no scale, or one that is not positive.
    """

    def __init__(
        self,
        over: Inference,
        scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        flip: bool = True,
        align_corners: bool = False,
    ) -> None:
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales are {list(scales)}; give positive factors, [0.75,1.0,1.25]")
        self.over = over
        self.scales = tuple(scales)
        self.flip = flip
        self.align_corners = align_corners

    @override
    def views(self, model: Segmentor, image: Tensor) -> list[ScoredView]:
        views = []
        for scale in self.scales:
            scaled = _scale(image, scale)
            views += self._back(self.over.views(model, scaled), image)
            if self.flip:
                mirrored = self.over.views(model, scaled.flip(-1))
                mirrored = [view._replace(columns=view.columns.flip(0)) for view in mirrored]
                views += self._back(mirrored, image)
        return views

    def at_network_size(self, image: Tensor) -> Tensor:
        """The image at the scale that is nearest to 1."""
        return self.over.at_network_size(
            _scale(image, min(self.scales, key=lambda scale: abs(scale - 1)))
        )

    def _back(self, views: list[ScoredView], image: Tensor) -> list[ScoredView]:
        height, width = image.shape[-2:]
        return [
            ScoredView(logits, self._resize(rows, height), self._resize(columns, width))
            for logits, rows, columns in views
        ]

    def _resize(self, matrix: Tensor, size: int) -> Tensor:
        then = resizing(len(matrix), size, self.align_corners)
        return (then.double() @ matrix.double()).float()


def _scale(image: Tensor, scale: float) -> Tensor:
    size = [int(side * scale + 0.5) for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    if not image.is_floating_point():
        image = image.float() / 255  # not rounded to whole grey values
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
