"""Cross-entropy of low-resolution logits against a full-size mask, in bands of rows."""

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gald.model.layers import resizing

# Memory limit for the scores of a band. On a CPU they should stay in its caches, elsewhere a band
# is large enough to keep the device busy. It does not depend on the number of threads.
BAND_BYTES_OF_CPU = 2**20
BAND_BYTES_OF_DEVICE = 2**27
LEAST_ROWS = 16  # of a band: neighbouring bands resize the logits between them twice


class Target(NamedTuple):
    """What the logits are compared with.

    Attributes:
        mask: (B, H, W) of integers, the class of each pixel.
        weight: (K,), one factor per class, or None.
        label_smoothing: share of the target that is spread over all classes.
        ignore_index: label of void pixels; their loss is 0.
        align_corners: how the logits are resized to the mask.
    """

    mask: Tensor
    weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = 255
    align_corners: bool = False


class Softmax(NamedTuple):
    """What is left of the scores of each pixel, (B, 1, H, W): enough to find its softmax again.

    Attributes:
        highest: the largest score.
        sums: sum of exp(score - highest) over the classes.
    """

    highest: Tensor
    sums: Tensor


def banded_cross_entropy(logits: Tensor, target: Target, factor: Tensor | None = None) -> Tensor:
    """Sum the cross-entropy of all pixels, each times its factor.

    It is that of logits resized bilinearly to the mask, in float32, but full-size logits are never
    in memory: each band of rows is resized, compared and turned into its part of the gradient. The
    memory depends on the size of the mask only through its planes without classes.

    Args:
        logits: (B, K, h, w).
        target: the mask and how it is compared.
        factor: (B, H, W), or None for 1 everywhere.

    Returns:
        scalar, with a gradient of first order.
    """
    return _BandedCrossEntropy.apply(logits, target, factor)


def first_pass(logits: Tensor, target: Target) -> tuple[Tensor, Softmax]:
    """Return the cross-entropy of each pixel (B, H, W), float32, and its softmax; no gradient.

    A loss that chooses or weights pixels by their cross-entropy does so with the first, and passes
    the second to `second_pass`.
    """
    with torch.no_grad(), _full_precision(logits):
        b, height, width = target.mask.shape
        losses, *planes = (
            torch.empty(shape, dtype=torch.float32, device=logits.device)
            for shape in ((b, height, width), *[(b, 1, height, width)] * 2)
        )
        softmax = Softmax(*planes)
        for band in _bands(logits, target):
            losses[band.images, band.rows] = band.losses().movedim(0, 1)
            for plane, values in zip(softmax, (band.highest, band.sum), strict=True):
                plane[band.images, :, band.rows] = values.movedim(0, 2)
        return losses, softmax


def second_pass(
    value: Tensor, logits: Tensor, target: Target, factor: Tensor, softmax: Softmax
) -> Tensor:
    """Return `value` with the gradient of the sum of all pixels' cross-entropy times factors.

    Args:
        value: scalar, a loss.
        logits: those of the first pass.
        target: that of the first pass, which has neither weights nor smoothed labels.
        factor: (B, H, W), the derivative of the loss by the cross-entropy of each pixel.
        softmax: result of the first pass.

    Returns:
        scalar, with a gradient of first order.
    """
    return _SecondPass.apply(value, logits, target, factor, softmax)


class _BandedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Target, factor: Tensor | None) -> Tensor:
        parts: list[Tensor] = []
        gradient = _Gradient(logits, target) if ctx.needs_input_grad[0] else None
        with _full_precision(logits):
            for band in _bands(logits, target):
                factors = None if factor is None else factor[band.images, band.rows].movedim(1, 0)
                losses = band.losses()
                parts.append((losses if factors is None else losses * factors).sum())
                if gradient is not None:
                    band.add_gradient(gradient.sums, factors)
        if gradient is not None:
            gradient.save(ctx)
        return torch.stack(parts).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _saved_gradient(ctx, *grads), None, None


class _SecondPass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, logits: Tensor, target: Target, factor: Tensor, softmax: Softmax
    ) -> Tensor:
        if ctx.needs_input_grad[1]:
            gradient = _Gradient(logits, target)
            with _full_precision(logits):
                for band in _bands(logits, target):
                    band.recall(softmax)
                    factors = factor[band.images, band.rows].movedim(1, 0)
                    band.add_gradient(gradient.sums, factors)
            gradient.save(ctx)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None, None, None]:
        return None, _saved_gradient(ctx, *grads), None, None, None


class _Gradient:
    """Gradient of the logits, summed over the bands: `sums` is (h, B, K, w), turned over."""

    def __init__(self, logits: Tensor, target: Target) -> None:
        b, k, h, w = logits.shape
        self.dtype, self.turned = logits.dtype, (h, w) != target.mask.shape[1:]
        self.sums = torch.zeros(h, b, k, w, dtype=torch.float32, device=logits.device)

    def save(self, ctx: Any) -> None:
        """Save it for `_saved_gradient`, (B, K, h, w)."""
        gradient = self.sums.movedim(0, 2)
        ctx.dtype = self.dtype
        ctx.save_for_backward(gradient.flip(2, 3) if self.turned else gradient)


def _saved_gradient(ctx: Any, grad: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        raise ValueError(
            "the loss is computed in bands and has no second derivative, which create_graph="
            "True asks for; use torch.nn.functional.cross_entropy on logits of the mask's size"
        )
    (gradient,) = ctx.saved_tensors
    return (gradient * grad).to(ctx.dtype)


class _Band:
    """Some rows of some images: scores with rows outermost, (r, B, K, W)."""

    def __init__(
        self,
        low: Tensor,
        target: Target,
        images: slice,
        rows: slice,
        cells: slice,
        tall: Tensor | None = None,
        wide: Tensor | None = None,
    ) -> None:
        self.target, self.images, self.rows = target, images, rows
        self.tall, self.cells, self.wide = tall, cells, wide
        mask = target.mask[images, rows].long().movedim(1, 0)  # (r, B, W)
        self.valid = mask != target.ignore_index
        self.label = mask.where(self.valid, 0)[:, :, None]
        scores = low
        if wide is not None:
            scores = scores @ wide.T
        if tall is not None:
            scores = (tall @ scores.flatten(1)).view(len(tall), *scores.shape[1:])
        self.scores: Tensor = scores
        self.hard: Tensor | float = 1.0  # factor of the label itself

    def losses(self) -> Tensor:
        """Return the cross-entropy (r, B, W), and prepare for `add_gradient`."""
        target = self.target
        self.highest = self.scores.amax(2, keepdim=True)
        scores = self._below_highest()
        of_label = scores.gather(2, self.label)
        smooth = None
        if target.label_smoothing:
            weighted = scores if target.weight is None else scores * target.weight[:, None]
            smooth = weighted.sum(2, keepdim=True)
        self.exp = scores.exp_()
        self.sum = self.exp.sum(2, keepdim=True)
        log_sum = self.sum.log()
        loss = log_sum - of_label
        if target.weight is not None or target.label_smoothing:
            self.hard = self._weight() * (1 - target.label_smoothing)
            loss = self.hard * loss
        if smooth is not None:
            share, total = self._smoothing(self.exp.shape[2])
            loss = loss + (total * log_sum - share * smooth)
        return loss[:, :, 0].masked_fill(~self.valid, 0)

    def recall(self, softmax: Softmax) -> None:
        """Prepare for `add_gradient` with the softmax of `losses`, of a band with these rows."""
        planes = (plane[self.images, :, self.rows].movedim(2, 0) for plane in softmax)
        self.highest, self.sum = planes
        self.exp = self._below_highest().exp_()

    def _below_highest(self) -> Tensor:
        if self.wide is None and self.tall is None:
            return self.scores - self.highest  # the scores are the logits themselves
        return self.scores.sub_(self.highest)

    def add_gradient(self, gradient: Tensor, factors: Tensor | None) -> None:
        """Add the gradient of the sum of losses times factors to that of the logits."""
        factor = self.valid.float() if factors is None else self.valid * factors
        factor = factor[:, :, None]
        hard, target = self.hard * factor, self.target
        share, total = 0.0, 0.0
        if target.label_smoothing:
            share, total = self._smoothing(self.exp.shape[2])
        scores = self.exp.mul_((hard + total * factor) / self.sum)
        scores.scatter_(2, self.label, scores.gather(2, self.label) - hard)
        if target.label_smoothing:
            spread = share * factor
            scores -= spread if target.weight is None else spread * target.weight[:, None]
        if self.tall is not None:
            back = self.tall.T @ scores.flatten(1)
            scores = back.view(len(back), *scores.shape[1:])
        if self.wide is not None:
            scores = scores @ self.wide
        gradient[self.cells, self.images] += scores

    def _weight(self) -> Tensor | float:
        if (weight := self.target.weight) is None:
            return 1.0
        # As one look-up in a row: indexing with a tensor takes five times as long on a CPU.
        return weight.index_select(0, self.label.flatten()).view(self.label.shape)

    def _smoothing(self, classes: int) -> tuple[float, Any]:
        """Return the share of each class in a smoothed target, and the sum of the shares."""
        share = self.target.label_smoothing / classes
        weight = self.target.weight
        return share, share * classes if weight is None else share * weight.sum()


def _bands(logits: Tensor, target: Target) -> Iterator[_Band]:
    (count, classes, h, w), (_, height, width) = logits.shape, target.mask.shape
    device = logits.device
    budget = BAND_BYTES_OF_CPU if device.type == "cpu" else BAND_BYTES_OF_DEVICE
    of_row = 4 * classes * width
    images = min(count, max(1, budget // (of_row * height)))
    rows = min(height, max(LEAST_ROWS, budget // (of_row * images)))
    resizes = (h, w) != (height, width)
    if resizes:
        tall, wide = (
            resizing(old, new, target.align_corners, device).flip(1)
            for old, new in ((h, height), (w, width))
        )
    for image in range(0, count, images):
        some = slice(image, min(image + images, count))
        low = logits.detach()[some].float()
        low = (low.flip(2, 3) if resizes else low).movedim(2, 0)
        for start in range(0, height, rows):
            band = slice(start, min(start + rows, height))
            if resizes:
                cells = _cells(band, h, height, target.align_corners)
                yield _Band(low[cells], target, some, band, cells, tall[band, cells], wide)
            else:
                yield _Band(low[band], target, some, band, band)


def _cells(rows: slice, old: int, new: int, align_corners: bool) -> slice:
    """Return the rows of flipped logits that a band of the mask depends on."""

    def source(row: int) -> float:
        if align_corners:
            return row * (old - 1) / max(new - 1, 1)
        return (row + 0.5) * old / new - 0.5

    # A little wider, so that rounding leaves nothing out.
    first = max(0, math.floor(source(rows.start) - 0.01))
    last = min(old - 1, math.floor(source(rows.stop - 1) + 0.01) + 1)
    return slice(old - 1 - last, old - first)


@contextmanager
def _full_precision(logits: Tensor) -> Generator[None, None, None]:
    # Full precision, whatever training has set: rounded factors would blur the scores.
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(logits.device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
