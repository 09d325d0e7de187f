"""Sum of the main and the auxiliary loss."""

from torch import Tensor, nn
from typing_extensions import override

from gald.model.layers import resize
from gald.model.segmentor import SegOutput


class DeepSupervision(nn.Module):
    """Main loss plus the weighted loss of the auxiliary head, both at the mask's resolution.

    Args:
        main: `(logits, mask)` -> scalar, for the main head.
        aux: the same for the auxiliary head.
        weight: factor on the auxiliary loss.
        align_corners: how logits are resized to the mask; use the value of the model.

    Shape:
        out: SegOutput; mask: (B, H, W) -> scalar
    """

    def __init__(
        self, main: nn.Module, aux: nn.Module, weight: float = 0.4, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.main = main
        self.aux = aux
        self.weight = weight
        self.align_corners = align_corners

    @override
    def forward(self, out: SegOutput, mask: Tensor) -> Tensor:
        size = mask.shape[-2:]
        loss = self.main(resize(out.logits, size, self.align_corners), mask)
        if out.aux is not None:
            loss = loss + self.weight * self.aux(resize(out.aux, size, self.align_corners), mask)
        return loss
