"""Full-image inference in one pass."""

from torch import Tensor
from typing_extensions import override

from gald.inference.base import Inference, ScoredView
from gald.inference.precision import Precision, check_precision
from gald.model.layers import resize, resizing
from gald.model.network import Network


class FullImage(Inference):
    """Inference on the whole image in one pass.

    Args:
        align_corners: how logits are resized to the image; set to the model's value.
        precision: `bf16` passes the image through the network in bfloat16, with the channels
            innermost; null is the precision of the trainer.

    Shape:
        model, image (B, 3, H, W) -> (B, K, H, W)
    """

    def __init__(self, align_corners: bool = False, precision: Precision = None) -> None:
        self.align_corners = align_corners
        self.precision = check_precision(precision)

    @override
    def __call__(self, model: Network, image: Tensor) -> Tensor:
        return resize(self.logits(model, image), image.shape[-2:], self.align_corners)

    @override
    def views(self, model: Network, image: Tensor) -> list[ScoredView]:
        logits = self.logits(model, image)
        pairs = zip(logits.shape[-2:], image.shape[-2:], strict=True)
        rows, columns = (resizing(old, new, self.align_corners) for old, new in pairs)
        return [ScoredView(logits, rows, columns)]
