"""From a model and an image to class scores at the image's size."""

from torch import Tensor

from gald.models.segmentor import Segmentor
from gald.modules.layers import resize


class Whole:
    """Scores the whole image in one pass.

    Args:
        align_corners: how logits are resized to the image; set to what the model uses.

    Shape:
        model, image (B, 3, H, W) -> (B, K, H, W)
    """

    def __init__(self, align_corners: bool = False) -> None:
        self.align_corners = align_corners

    def __call__(self, model: Segmentor, image: Tensor) -> Tensor:  # noqa: D102
        return resize(model.logits(image), image.shape[-2:], self.align_corners)
