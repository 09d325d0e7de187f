"""View of a network on one image: recorded maps, prediction, and prediction without LD."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from gald.inference.ld_map import in_one_channel
from gald.model.layers import resize
from gald.model.ld.none import NoDistribution
from gald.model.network import Network
from gald.painting import Palette
from gald.prediction.predictor import Predictor
from gald.viz.record import FeatureMap, record

Query = tuple[int, int]
DEFAULT_QUERIES = 3


@dataclass(frozen=True, eq=False)
class NetworkView:
    """Maps and predictions of a network for an image of H x W pixels, with maps of h x w cells.

    Attributes:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8 train ids, with the inference used in validation.
        labels_without_ld: the same with an LD that returns its context unchanged; None if the
            network has no LD.
        ld: (H, W), the LD map in one channel, see
            `gald.inference.ld_map.in_one_channel`; None without LD.
        maps: maps recorded in one pass over the whole image, at the scale of the inference nearest
            to 1, each (1, C, h, w) on the CPU.
        queries: pixels (X, Y).
        attention: a map (1, 1, h, w) for each query, see `gald.viz.record.Recording.attention`.
        class_names: names of the K classes.
        palette: K colours.
        slots: class names of GA and LD.
    """

    image: np.ndarray
    labels: np.ndarray
    labels_without_ld: np.ndarray | None
    ld: np.ndarray | None
    maps: dict[str, FeatureMap]
    queries: list[Query]
    attention: list[FeatureMap]
    class_names: tuple[str, ...]
    palette: Palette
    slots: tuple[str, str]

    @property
    def changed(self) -> float:
        """Fraction of pixels that change their class without LD."""
        return (
            0.0
            if self.labels_without_ld is None
            else float(np.mean(self.labels != self.labels_without_ld))
        )


def inspect_network(
    network: Predictor, image: Tensor, queries: Sequence[Query] | None = None
) -> NetworkView:
    """Pass an image through a network, with and without LD, and record its maps.

    Args:
        network: in eval mode.
        image: (3, H, W) uint8.
        queries: pixels (X, Y) for which attention is computed; None takes one inside the largest
            region of each of the most frequent predicted classes.

    Raises:
        ValueError: a query is outside of the image.
    """
    check_queries(queries or (), image)
    model = network.model
    batch = image.to(next(model.parameters()).device)[None]
    with torch.no_grad():
        labels = _predict_labels(network, batch)
        with record(model) as maps:
            model.logits(network.inference.at_network_size(batch))
        labels_without_ld = None
        if not isinstance(model.ld, NoDistribution):
            with no_distribution(model):
                labels_without_ld = _predict_labels(network, batch)
    chosen = inner_pixels(labels, DEFAULT_QUERIES) if queries is None else list(queries)
    ld_map, size = maps.get("ld/map"), image.shape[-2:]
    ld = None
    if ld_map is not None:
        ld = resize(in_one_channel(ld_map.values), size, model.align_corners)[0, 0].cpu().numpy()
    cells = [cell_of(q, size, maps["ga/input"].shape[-2:], model.align_corners) for q in chosen]
    return NetworkView(
        image=image.permute(1, 2, 0).cpu().numpy(),
        labels=labels,
        labels_without_ld=labels_without_ld,
        ld=ld,
        maps={name: _on_cpu(feature_map) for name, feature_map in maps.items()},
        queries=chosen,
        attention=[_on_cpu(maps.attention(*cell)) for cell in cells],
        class_names=network.class_names,
        palette=network.palette,
        slots=(type(model.ga).__name__, type(model.ld).__name__),
    )


@contextmanager
def no_distribution(model: Network) -> Generator[None]:
    """Replace LD by one that returns its context unchanged, inside a `with` block."""
    ld = model.ld
    model.ld = NoDistribution()
    try:
        yield
    finally:
        model.ld = ld


def check_queries(queries: Sequence[Query], image: Tensor) -> None:
    """Raise a ValueError if a query (X, Y) is outside of an image (3, H, W)."""
    height, width = image.shape[-2:]
    for x, y in queries:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"query {x} {y} is outside of the image of {width}x{height} px; "
                f"choose X from 0 to {width - 1} and Y from 0 to {height - 1}"
            )


def cell_of(
    query: Query, size: Sequence[int], cells: Sequence[int], align_corners: bool
) -> tuple[int, int]:
    """Return the cell (row, column) of a map that contains a pixel (X, Y) of the image."""
    cell = []
    for position, pixels, count in zip(reversed(query), size, cells, strict=True):
        if align_corners:
            cell.append(round(position * (count - 1) / max(pixels - 1, 1)))
        else:
            cell.append(int((position + 0.5) * count / pixels))
    return cell[0], cell[1]


def inner_pixels(labels: np.ndarray, count: int) -> list[Query]:
    """Return the pixel (X, Y) farthest from other classes for each of the most frequent classes."""
    pixels = np.bincount(labels.ravel(), minlength=256)
    most_frequent = [k for k in np.argsort(-pixels, kind="stable")[:count] if pixels[k]]
    queries = []
    for k in most_frequent:
        # The padding counts as another class, so that no query is at the image's border.
        inside = np.pad((labels == k).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        queries.append((int(x), int(y)))
    return queries


def _predict_labels(network: Predictor, image: Tensor) -> np.ndarray:
    return network.inference.predict(network.model, image).labels[0].cpu().numpy()


def _on_cpu(feature_map: FeatureMap) -> FeatureMap:
    return FeatureMap(feature_map.values.float().cpu(), feature_map.stride, feature_map.meaning)
