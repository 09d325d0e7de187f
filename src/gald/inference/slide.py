"""Sliding-window inference."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from gald.inference.base import Inference, ScoredView
from gald.inference.precision import Precision, check_precision
from gald.model.layers import resizing
from gald.model.network import Network
from gald.options.ranges import Count, Share, Size
from gald.profiling.memory import TensorMemoryTracker
from gald.run.limits import refuse_pixels

_BLENDINGS = ("uniform", "gaussian")


class Slide(Inference):
    """Sliding windows of the training size; logits are averaged where windows overlap.

    Windows start at the top left, `stride` apart; the last one of a row or column is moved back
    inside the image. An image smaller than the window becomes one window of its own size.

    The defaults are the protocol of the authors (lxtGH/GALD-DGCNet eval.py): an overlap of one
    third and equal weights; their window on Cityscapes is 832. `gaussian` gives the middle of a
    window more weight, with a standard deviation of 1/8 of its side (nnU-Net,
    https://arxiv.org/abs/1809.10486).

    Args:
        window: height and width of a window in pixels.
        overlap: fraction of a window's side that its neighbour also covers.
        stride: vertical and horizontal distance of windows in pixels; replaces `overlap`.
        blending: `uniform` or `gaussian`.
        max_bytes: memory limit for the activations of one pass. The first window runs alone, to
            measure the memory of one window; windows above the limit run one at a time.
        align_corners: how logits are resized to the window; set to the model's value.
        precision: `bf16` passes windows through the network in bfloat16, with the channels
            innermost; null is the precision of the trainer.

    Shape:
        model, image (B, 3, H, W) -> (B, K, H, W)

    Raises:
        ValueError: the windows would not cover all pixels, or the blending is unknown.
    """

    def __init__(
        self,
        window: Size = (512, 512),
        overlap: Share = 1 / 3,
        stride: Size | None = None,
        blending: Literal["uniform", "gaussian"] = "uniform",
        max_bytes: Count = 2**29,
        align_corners: bool = False,
        precision: Precision = None,
    ) -> None:
        if len(window) != 2 or min(window) < 1:
            raise ValueError(
                f"window is {list(window)}; give a height and a width, as in window=[512,512]"
            )
        refuse_pixels(window[0], window[1], "window", "choose a smaller inference.window")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}; set it to at least 0 and less than 1")
        if stride is None:
            # Rounded before ceil, so that two thirds of 513 are 342 despite floating-point error.
            stride = [math.ceil(round(side * (1 - overlap), 6)) for side in window]
        if len(stride) != 2 or min(stride) < 1:
            raise ValueError(f"stride is {list(stride)}; give two distances of at least 1 px")
        for side, step in zip(window, stride, strict=True):
            if step > side:
                raise ValueError(
                    f"stride {step} is larger than window {side}, so pixels between windows would "
                    f"have no score; choose a stride of at most {side}"
                )
        if blending not in _BLENDINGS:
            raise ValueError(f"blending is {blending!r}; choose one of {', '.join(_BLENDINGS)}")
        self.window = tuple(window)
        self.stride = tuple(stride)
        self.blending = blending
        self.max_bytes = max_bytes
        self.align_corners = align_corners
        self.precision = check_precision(precision)

    @override
    def views(self, model: Network, image: Tensor) -> list[ScoredView]:
        sizes = image.shape[-2:]
        height, width = (min(pair) for pair in zip(sizes, self.window, strict=True))
        tops, lefts = map(_starts, sizes, self.window, self.stride)
        corners = [(y, x) for y in tops for x in lefts]
        windows = [image[..., y : y + height, x : x + width] for y, x in corners]
        logits = torch.cat(list(self._passes(model, windows)))
        h, w = logits.shape[-2:]
        grid = logits.view(len(tops), len(lefts), len(image), -1, h, w)
        grid = grid.permute(2, 3, 0, 4, 1, 5).flatten(4).flatten(2, 3)
        rows = self._blend(tops, sizes[0], resizing(h, height, self.align_corners))
        columns = self._blend(lefts, sizes[1], resizing(w, width, self.align_corners))
        return [ScoredView(grid, rows, columns)]

    def _passes(self, model: Network, windows: list[Tensor]) -> Iterator[Tensor]:
        if len(windows) > 1:
            with TensorMemoryTracker([windows[0], *model.parameters(), *model.buffers()]) as memory:
                yield self.logits(model, windows.pop(0))
            batch_size = max(1, self.max_bytes // max(1, memory.peak))
        else:
            batch_size = 1
        for i in range(0, len(windows), batch_size):
            yield self.logits(model, torch.cat(windows[i : i + batch_size]))

    def _blend(self, starts: list[int], size: int, resizing: Tensor) -> Tensor:
        """Combine the resizes (side, n) of a row or column of windows in one matrix (size, N n)."""
        side, n = resizing.shape
        weights = torch.ones(side, dtype=torch.float64)
        if self.blending == "gaussian":
            middle = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
            weights = torch.exp(-((middle / (side / 8)) ** 2) / 2)
        matrix = torch.zeros(size, len(starts) * n, dtype=torch.float64)
        total = torch.zeros(size, 1, dtype=torch.float64)
        for i, start in enumerate(starts):
            matrix[start : start + side, i * n : (i + 1) * n] = weights[:, None] * resizing
            total[start : start + side, 0] += weights
        return (matrix / total).float()


def _starts(size: int, side: int, step: int) -> list[int]:
    """Return the first pixel of each window along one axis."""
    if size <= side:
        return [0]
    return [min(i, size - side) for i in range(0, size - side + step, step)]
