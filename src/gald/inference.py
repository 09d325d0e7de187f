"""From a model and an image to class scores at the image's size, a strip of rows at a time.

Everything here is linear and separable up to the softmax: whichever windows and scales a mode
sends through the network, its scores at the image's size are `rows @ logits @ columns^T` of the
low-resolution logits. A mode says what its `View`s are; the strips are the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gald.models.segmentor import Segmentor
from gald.modules.layers import resize

VOID = 255
_CACHE_BYTES = {"cpu": 2**20}  # a tile is used four times over; on CPUs it stays in the L2 cache
_DEVICE_BYTES = 2**28


class Prediction(NamedTuple):
    """Train ids (B, H, W), uint8, and the probability of each, float32 in [0, 1], or None."""

    labels: Tensor
    confidence: Tensor | None


class View(NamedTuple):
    """Low-resolution logits, and the matrices that spread them over the image.

    Attributes:
        logits: (B, K, m, n), of one pass or of many windows side by side.
        rows: (H, m), on the CPU; what of each row of logits is in each row of the image.
        columns: (W, n), the same for columns.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor


class _Band(NamedTuple):
    """Some rows of a matrix, without the columns that are zero there."""

    place: slice
    index: Tensor
    weights: Tensor


class Inference(ABC):
    """What every mode does with its views. A mode writes `views`."""

    @abstractmethod
    def views(self, model: Segmentor, image: Tensor) -> list[View]:
        """The network's passes over an image (B, 3, H, W); several views are averaged."""

    def __call__(self, model: Segmentor, image: Tensor) -> Tensor:
        """Scores (B, K, H, W); their softmax is the probability."""
        return torch.cat([scores for _, scores in self.strips(model, image)], 2)

    def strips(self, model: Segmentor, image: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The scores (B, K, rows, W) of some rows at a time, from the top."""
        views = self.views(model, image)
        row: list[Tensor] = []
        for rows, columns, scores in _tiles(views):
            row.append(scores if len(views) == 1 else scores.log())
            if columns.stop == image.shape[-1]:
                yield rows, torch.cat(row, -1)
                row = []

    @torch.no_grad()
    def predict(self, model: Segmentor, image: Tensor, confidence: bool = False) -> Prediction:
        """The likeliest class of every pixel, and on demand how likely it is.

        Holds neither scores nor probabilities of the image, only those of one tile. A pixel whose
        scores are not numbers is void.
        """
        size = (len(image), *image.shape[-2:])
        labels = torch.empty(size, dtype=torch.uint8, device=image.device)
        sure = torch.empty(size, device=image.device) if confidence else None
        views = self.views(model, image)
        for rows, columns, scores in _tiles(views):
            best = scores.amax(1)
            labels[:, rows, columns] = _first(scores, best)
            if sure is not None:
                if len(views) == 1:
                    best = (scores - best[:, None]).exp_().sum(1).reciprocal_()
                sure[:, rows, columns] = best
        return Prediction(labels, sure)


class Whole(Inference):
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

    def views(self, model: Segmentor, image: Tensor) -> list[View]:  # noqa: D102
        logits = model.logits(image)
        pairs = zip(logits.shape[-2:], image.shape[-2:], strict=True)
        rows, columns = (_resizing(old, new, self.align_corners) for old, new in pairs)
        return [View(logits, rows, columns)]


def _resizing(old: int, new: int, align_corners: bool) -> Tensor:
    """The matrix (new, old) of a bilinear resize along one axis, to the last bit as torch's."""
    unit = torch.eye(old)[None]
    if new != old:
        unit = F.interpolate(unit, size=new, mode="linear", align_corners=align_corners)
    return unit[0].T


def _tiles(views: list[View]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Scores of one view, mean probabilities of several: (B, K, rows, columns) a tile at a time."""
    first = views[0].logits
    device = first.device
    images, classes = first.shape[:2]
    room = _CACHE_BYTES.get(device.type, _DEVICE_BYTES) // (4 * images * classes)
    height = 8
    width = max(64, room // height)
    tall = [_bands(view.rows, height, device) for view in views]
    wide = [_bands(view.columns, width, device) for view in views]
    # In full precision also under autocast: bfloat16 confuses neighbouring classes.
    with torch.autocast(device.type, enabled=False):
        logits = [view.logits.float() for view in views]
        for y in range(len(tall[0])):
            low = [x.index_select(2, bands[y].index) for x, bands in zip(logits, tall, strict=True)]
            for x in range(len(wide[0])):
                parts = [
                    rows[y].weights
                    @ (part.index_select(3, columns[x].index) @ columns[x].weights.T)
                    for part, rows, columns in zip(low, tall, wide, strict=True)
                ]
                scores = parts[0]
                if len(parts) > 1:
                    scores = torch.stack([part.softmax(1) for part in parts]).mean(0)
                yield tall[0][y].place, wide[0][x].place, scores


def _bands(matrix: Tensor, size: int, device: torch.device) -> list[_Band]:
    bands = []
    for start in range(0, len(matrix), size):
        place = slice(start, min(start + size, len(matrix)))
        # From the last to the first: products are then added in the order of F.interpolate.
        index = (matrix[place] != 0).any(0).nonzero()[:, 0].flip(0)
        bands.append(_Band(place, index.to(device), matrix[place][:, index].to(device)))
    return bands


def _first(scores: Tensor, best: Tensor) -> Tensor:
    """The first class that has the best score: argmax, by operations that are vectorised."""
    codes = VOID - torch.arange(scores.shape[1], device=scores.device).to(torch.uint8)
    found = (scores == best[:, None]).view(torch.uint8)
    return VOID - (found * codes[:, None, None]).amax(1)
