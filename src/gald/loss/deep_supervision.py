"""Sum of the main and the auxiliary loss."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.loss.combined import Combined, mean_loss
from gald.loss.cross_entropy import labelled
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
            takes `(logits, mask, align_corners)`, and resizes the logits itself. See `Combined` for
            several losses.
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
        counts = (pixels, step_pixels)
        loss = self._part(self.main, out.logits, mask, counts, "loss.main")
        if out.aux is not None:
            loss = loss + self.weight * self._part(self.aux, out.aux, mask, counts, "loss.aux")
        return loss

    def _part(
        self,
        loss: nn.Module,
        logits: Tensor,
        mask: Tensor,
        counts: tuple[Tensor | None, Tensor | None],
        place: str,
    ) -> Tensor:
        if isinstance(loss, Combined):
            terms = [
                weight * self._part(term, logits, mask, counts, f"{place}.losses.{name}")
                for name, weight, term in loss.terms()
            ]
            return torch.stack(terms).sum()
        mean = mean_loss(loss, logits, mask, self.align_corners)
        pixels, step_pixels = counts
        if pixels is None or step_pixels is None:
            return mean
        # Comparing two tensors reads from the device; the only mask of a step is known by identity.
        whole = pixels is step_pixels or getattr(loss, "over", None) != "batch"
        if not whole and not pixels.equal(step_pixels):
            raise ValueError(
                f"{place}.over=batch computes one loss of the images of a forward pass, but the "
                f"optimizer step has several; set {place}.over=image, or use one device and "
                "data.micro_batch_size=null"
            )
        normaliser = getattr(loss, "normaliser", labelled)
        share = normaliser(pixels) / normaliser(step_pixels).clamp(min=1e-6)
        return mean * share.to(mean.dtype)
