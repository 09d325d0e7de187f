"""Sum of the main and the auxiliary loss."""

from torch import Tensor, nn
from typing_extensions import override

from gald.loss.cross_entropy import labelled
from gald.model.layers import resize
from gald.model.segmentor import SegOutput
from gald.options.ranges import NotNegative


class DeepSupervision(nn.Module):
    """Main loss plus the weighted loss of the auxiliary head, both at the mask's resolution.

    The losses are means over the labelled pixels of their mask. With `pixels` and `step_pixels`,
    the result is this mask's part of the mean over the whole optimizer step: the parts of all
    micro-batches and devices sum to the loss of one big batch. A loss that divides by something
    else than the labelled pixels defines `normaliser(pixels)`, as `CrossEntropy` does for class
    weights.

    Args:
        main: `(logits, mask)` -> scalar, for the main head. If its attribute `resizes` is true, it
            takes `(logits, mask, align_corners)`, and resizes the logits itself.
        aux: the same for the auxiliary head.
        weight: factor on the auxiliary loss.
        align_corners: how logits are resized to the mask; use the value of the model.

    Shape:
        out: SegOutput; mask: (B, H, W); pixels, step_pixels: (256,), the pixels of each label in
        the mask and in all masks of the optimizer step -> scalar
    """

    def __init__(
        self,
        main: nn.Module,
        aux: nn.Module,
        weight: NotNegative = 0.4,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.main = main
        self.aux = aux
        self.weight = weight
        self.align_corners = align_corners

    @override
    def forward(
        self,
        out: SegOutput,
        mask: Tensor,
        pixels: Tensor | None = None,
        step_pixels: Tensor | None = None,
    ) -> Tensor:
        loss = self._part(self.main, out.logits, mask, pixels, step_pixels)
        if out.aux is not None:
            loss = loss + self.weight * self._part(self.aux, out.aux, mask, pixels, step_pixels)
        return loss

    def _part(
        self,
        loss: nn.Module,
        logits: Tensor,
        mask: Tensor,
        pixels: Tensor | None,
        step_pixels: Tensor | None,
    ) -> Tensor:
        if getattr(loss, "resizes", False):
            mean = loss(logits, mask, self.align_corners)
        else:
            mean = loss(resize(logits, mask.shape[-2:], self.align_corners), mask)
        if pixels is None or step_pixels is None:
            return mean
        if getattr(loss, "over", None) == "batch" and not pixels.equal(step_pixels):
            raise ValueError(
                "loss.main.over=batch chooses pixels among the images of one forward pass, but the "
                "optimizer step has several; set loss.main.over=image, or use one device and "
                "data.micro_batch_size=null"
            )
        normaliser = getattr(loss, "normaliser", labelled)
        share = normaliser(pixels) / normaliser(step_pixels).clamp(min=1e-6)
        return mean * share.to(mean.dtype)
