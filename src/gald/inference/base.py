"""Base of all inference modes: scores at the image's size, one tile at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gald.device import reuse_memory
from gald.inference.precision import Precision, run_network
from gald.model.network import Network

VOID = 255
# Memory limit for the scores of one image in a tile. A tile is read four times: on a CPU each
# thread's part fits its L2 cache, elsewhere the tile is large enough to keep the device busy.
TILE_BYTES_OF_THREAD = 2**20
TILE_BYTES_OF_DEVICE = 2**27


class LabelMap(NamedTuple):
    """Train ids (B, H, W) uint8, and their probabilities, float32 in [0, 1], or None."""

    labels: Tensor
    confidence: Tensor | None


class ScoredView(NamedTuple):
    """Logits of one view of an image, and the matrices that resize them to the image.

    Resizing, blending of windows on a grid and flipping are linear and separable, so the scores of
    any mode at the image's size are `rows @ logits @ columns.T`.

    Attributes:
        logits: (B, K, m, n), of one pass, or of a grid of windows side by side.
        rows: (H, m), on the CPU: the weight of each row of logits in each row of the image.
        columns: (W, n), the same for columns.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor


class Inference(ABC):
    """Base class of inference modes: computes scores and labels from the views of a mode.

    A mode implements `views`, and passes images through the network with `logits`.

    Attributes:
        precision: `bf16`, or None for the precision of the trainer.
    """

    precision: Precision = None

    @abstractmethod
    def views(self, model: Network, image: Tensor) -> list[ScoredView]:
        """Pass an image (B, 3, H, W) through the network; several views are averaged later."""

    def logits(self, model: Network, image: Tensor) -> Tensor:
        """Pass an image (B, 3, H, W) through the network, in the precision of this inference."""
        return run_network(model, image, self.precision)

    def at_network_size(self, image: Tensor) -> Tensor:
        """Resize an image (B, 3, H, W) to the size for inspecting the network in one pass."""
        return image

    def __call__(self, model: Network, image: Tensor) -> Tensor:
        """Return scores (B, K, H, W): logits of one view, or log-probabilities of several.

        In every mode their softmax is the probability.
        """
        return torch.cat([scores for _, scores in self.row_strips(model, image)], 2)

    def row_strips(self, model: Network, image: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of rows, from the top, with their scores (B, K, rows, W)."""
        views = self.views(model, image)
        tiles = TileGrid(views)
        for y, rows in enumerate(tiles.rows):
            strip = torch.cat([scores for _, scores in tiles.strip(views, y)], 3)
            yield rows, strip if len(views) == 1 else strip.log_()

    @torch.no_grad()
    def predict(self, model: Network, image: Tensor, confidence: bool = False) -> LabelMap:
        """Predict the likeliest class of every pixel, and with `confidence` its probability.

        Scores and probabilities of the whole image are never in memory at once. A pixel with a NaN
        score becomes void.
        """
        reuse_memory(image)
        size = (len(image), *image.shape[-2:])
        labels = torch.empty(size, dtype=torch.uint8, device=image.device)
        probability = torch.empty(size, device=image.device) if confidence else None
        views = self.views(model, image)
        tiles = TileGrid(views)
        for i in range(len(image)):
            single = [view._replace(logits=view.logits[i : i + 1]) for view in views]
            for y, rows in enumerate(tiles.rows):
                for columns, scores in tiles.strip(single, y):
                    best = scores.amax(1)
                    labels[i, rows, columns] = _first_argmax(scores, best)[0]
                    if probability is not None:
                        if len(views) == 1:
                            best = (scores - best[:, None]).exp_().sum(1).reciprocal_()
                        probability[i, rows, columns] = best.clamp_(max=1)[0]
        return LabelMap(labels, probability)


class SparseRows(NamedTuple):
    """Some rows of a matrix, restricted to the columns that are not all zero."""

    index: Tensor
    weights: Tensor


class TileGrid:
    """Partition of an image into strips of rows, and of the strips into tiles."""

    def __init__(self, views: list[ScoredView]) -> None:
        logits, rows, columns = views[0]
        on_cpu = logits.device.type == "cpu"
        budget = TILE_BYTES_OF_THREAD * torch.get_num_threads() if on_cpu else TILE_BYTES_OF_DEVICE
        pixels = budget // (4 * logits.shape[1])
        height = max(32, pixels // len(columns))
        self.rows = _split(len(rows), height)
        self.columns = _split(len(columns), max(64, pixels // height))
        device = logits.device
        self.tall = [[_sparse(view.rows[at], device) for at in self.rows] for view in views]
        self.wide = [[_sparse(view.columns[at], device) for at in self.columns] for view in views]

    def strip(self, views: list[ScoredView], y: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield the tiles (B, K, r, c) of a strip: scores of one view, else mean probabilities."""
        tall = [bands[y] for bands in self.tall]
        pairs = zip(views, tall, strict=True)
        low = [view.logits.index_select(2, band.index).float() for view, band in pairs]
        for x, columns in enumerate(self.columns):
            wide = [bands[x] for bands in self.wide]
            yield columns, _mean(map(apply_resize, low, tall, wide), len(views))


def apply_resize(logits: Tensor, rows: SparseRows, columns: SparseRows) -> Tensor:
    """Resize logits (B, K, m, n) to the tile of the given rows and columns."""
    # Full precision, whatever training has set: rounded factors would change labels.
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
    assert total is not None, "every mode has at least one view"
    return total.div_(count)


def _split(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _sparse(matrix: Tensor, device: torch.device) -> SparseRows:
    # From last to first: F.interpolate adds its products in this order.
    index = matrix.any(0).nonzero()[:, 0].flip(0)
    return SparseRows(index.to(device), matrix[:, index].to(device))


def _first_argmax(scores: Tensor, best: Tensor) -> Tensor:
    """Return the argmax over classes, the first of equal ones, in operations that vectorise."""
    codes = VOID - torch.arange(scores.shape[1], device=scores.device).to(torch.uint8)
    is_best = (scores == best[:, None]).view(torch.uint8)
    return VOID - is_best.mul_(codes[:, None, None]).amax(1)
