"""What all modes of inference share: scores at the image's size, a tile at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gald.model.segmentor import Segmentor

VOID = 255
# What the scores of one image may take in a tile. A tile is read four times: on a CPU each thread
# keeps its part in its L2 cache, elsewhere the tile is large enough to keep the device busy.
TILE_BYTES_OF_THREAD = 2**20
TILE_BYTES_OF_DEVICE = 2**27


class LabelMap(NamedTuple):
    """Train ids (B, H, W), uint8, and the probability of each, float32 in [0, 1], or None."""

    labels: Tensor
    confidence: Tensor | None


class ScoredView(NamedTuple):
    """Logits of one look at an image, and how they spread over it.

    Resizing, blending of windows on a grid and flipping are linear and separable, so the scores of
    any mode at the image's size are `rows @ logits @ columns.T`.

    Attributes:
        logits: (B, K, m, n), of one pass, or of a grid of windows side by side.
        rows: (H, m), on the CPU: the share of each row of logits in each row of the image.
        columns: (W, n), the same for columns.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor


class Inference(ABC):
    """Does with a mode's views what its users ask for. A mode writes `views`."""

    @abstractmethod
    def views(self, model: Segmentor, image: Tensor) -> list[ScoredView]:
        """Send an image (B, 3, H, W) through the network; of several views the mean counts."""

    def at_network_size(self, image: Tensor) -> Tensor:
        """An image (B, 3, H, W) at the size at which the network is looked at in one pass."""
        return image

    def __call__(self, model: Segmentor, image: Tensor) -> Tensor:
        """Scores (B, K, H, W) at the image's size: logits, or of several views log-probabilities.

        Their softmax is the probability in every mode.
        """
        return torch.cat([scores for _, scores in self.row_strips(model, image)], 2)

    def row_strips(self, model: Segmentor, image: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The scores (B, K, rows, W) of some rows at a time, with their place, from the top."""
        views = self.views(model, image)
        tiles = TileGrid(views)
        for y, rows in enumerate(tiles.rows):
            strip = torch.cat([scores for _, scores in tiles.strip(views, y)], 3)
            yield rows, strip if len(views) == 1 else strip.log_()

    @torch.no_grad()
    def predict(self, model: Segmentor, image: Tensor, confidence: bool = False) -> LabelMap:
        """The likeliest class of every pixel, and on demand how likely it is.

        Neither scores nor probabilities of the whole image are ever held. A pixel whose scores are
        not numbers becomes void.
        """
        size = (len(image), *image.shape[-2:])
        labels = torch.empty(size, dtype=torch.uint8, device=image.device)
        sure = torch.empty(size, device=image.device) if confidence else None
        views = self.views(model, image)
        tiles = TileGrid(views)
        for i in range(len(image)):
            mine = [view._replace(logits=view.logits[i : i + 1]) for view in views]
            for y, rows in enumerate(tiles.rows):
                for columns, scores in tiles.strip(mine, y):
                    best = scores.amax(1)
                    labels[i, rows, columns] = _first(scores, best)[0]
                    if sure is not None:
                        if len(views) == 1:
                            best = (scores - best[:, None]).exp_().sum(1).reciprocal_()
                        sure[i, rows, columns] = best.clamp_(max=1)[0]
        return LabelMap(labels, sure)


def resizing(old: int, new: int, align_corners: bool) -> Tensor:
    """The matrix (new, old) of a bilinear resize along one axis, with torch's own rounding."""
    unit = torch.eye(old)[None]
    if new != old:
        unit = F.interpolate(unit, size=new, mode="linear", align_corners=align_corners)
    return unit[0].T


class SparseRows(NamedTuple):
    """Some rows of a matrix, and of its columns only those that are not zero there."""

    index: Tensor
    weights: Tensor


class TileGrid:
    """The cut of an image into row_strips of rows, and of those into tiles, for a list of views."""

    def __init__(self, views: list[ScoredView]) -> None:
        logits, rows, columns = views[0]
        on_cpu = logits.device.type == "cpu"
        budget = TILE_BYTES_OF_THREAD * torch.get_num_threads() if on_cpu else TILE_BYTES_OF_DEVICE
        pixels = budget // (4 * logits.shape[1])
        height = max(32, pixels // len(columns))
        self.rows = _cut(len(rows), height)
        self.columns = _cut(len(columns), max(64, pixels // height))
        device = logits.device
        self.tall = [[_band(view.rows[at], device) for at in self.rows] for view in views]
        self.wide = [[_band(view.columns[at], device) for at in self.columns] for view in views]

    def strip(self, views: list[ScoredView], y: int) -> Iterator[tuple[slice, Tensor]]:
        """Scores of one view, mean probabilities of several: the tiles of a strip (B, K, r, c)."""
        tall = [bands[y] for bands in self.tall]
        pairs = zip(views, tall, strict=True)
        low = [view.logits.index_select(2, band.index).float() for view, band in pairs]
        for x, columns in enumerate(self.columns):
            wide = [bands[x] for bands in self.wide]
            yield columns, _mean(map(apply_resize, low, tall, wide), len(views))


def apply_resize(logits: Tensor, rows: SparseRows, columns: SparseRows) -> Tensor:
    """Resize logits (B, K, m, n) to the tile that the rows and columns stand for."""
    # In full precision, whatever training has set: rounded factors would change labels.
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(logits.device.type, enabled=False):
            return rows.weights @ (logits.index_select(3, columns.index) @ columns.weights.T)
    finally:
        torch.set_float32_matmul_precision(precision)


def _mean(scores: Iterable[Tensor], count: int) -> Tensor:
    if count == 1:
        return next(iter(scores))
    total: Tensor | None = None
    for part in scores:
        part = part.softmax(1)
        total = part if total is None else total.add_(part)
    assert total is not None, "a mode has views"
    return total.div_(count)


def _cut(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _band(matrix: Tensor, device: torch.device) -> SparseRows:
    # From last to first, because that is the order in which F.interpolate adds its products.
    index = matrix.any(0).nonzero()[:, 0].flip(0)
    return SparseRows(index.to(device), matrix[:, index].to(device))


def _first(scores: Tensor, best: Tensor) -> Tensor:
    """Argmax over classes, the first where several are equal, in operations that vectorise."""
    codes = VOID - torch.arange(scores.shape[1], device=scores.device).to(torch.uint8)
    found = (scores == best[:, None]).view(torch.uint8)
    return VOID - found.mul_(codes[:, None, None]).amax(1)
