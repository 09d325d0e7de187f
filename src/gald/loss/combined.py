"""Weighted sum of several losses."""

import difflib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from gald.model.layers import resize
from gald.options.ranges import NotNegative


class Combined(nn.Module):
    """Sum of losses times their weights; a loss of weight 0 is not computed.

    Each loss keeps its own normaliser: `DeepSupervision` scales the terms one by one, so that each
    is its part of the mean over the whole optimizer step.

    Args:
        losses: losses by name, as for `DeepSupervision`; null leaves one out.
        weights: factors by name; a loss without one has weight 0.

    Shape:
        logits (B, K, h, w), resized to the mask; mask (B, H, W) of integers -> scalar
    """

    resizes = True  # logits to the mask, for the losses that do not

    def __init__(
        self, losses: Mapping[str, nn.Module | None], weights: Mapping[str, NotNegative]
    ) -> None:
        super().__init__()
        known = {name: loss for name, loss in losses.items() if loss is not None}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        for name, weight in self.weights.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise ValueError(
                    f"loss.main.weights.{name}={weight}, but loss.main.losses has no {name}; {hint}"
                )
        if not self.weights:
            raise ValueError(
                "no loss has a weight above 0; set one, for example loss.main.weights.dice=1.0"
            )
        self.losses = nn.ModuleDict({name: known[name] for name in self.weights})

    def terms(self) -> Iterator[tuple[str, float, nn.Module]]:
        """Return name, weight and loss of each term."""
        return ((name, weight, self.losses[name]) for name, weight in self.weights.items())

    @override
    def forward(self, logits: Tensor, mask: Tensor, align_corners: bool = False) -> Tensor:
        losses = (w * mean_loss(loss, logits, mask, align_corners) for _, w, loss in self.terms())
        return sum(losses, start=logits.new_zeros((), dtype=torch.float32))


def mean_loss(loss: nn.Module, logits: Tensor, mask: Tensor, align_corners: bool) -> Tensor:
    """Compute a loss of logits that are resized to the mask, by the loss itself or before it."""
    if getattr(loss, "resizes", False):
        return loss(logits, mask, align_corners)
    return loss(resize(logits, mask.shape[-2:], align_corners), mask)
