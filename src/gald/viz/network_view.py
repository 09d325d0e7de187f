"""One network's look at one image: its maps, its prediction, and that without distribution."""

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
from gald.model.segmentor import Segmentor
from gald.painting import Palette
from gald.prediction.predictor import Predictor
from gald.viz.record import FeatureMap, record

Query = tuple[int, int]
DEFAULT_QUERIES = 3


@dataclass(frozen=True, eq=False)
class NetworkView:
    """What a network makes of an image of H x W pixels, at maps of h x w cells.

    Attributes:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8 train ids, by the inference that the network was validated with.
        without: the same where LD returns the context it was given; None where it does anyway.
        ld: (H, W), the LD map in one channel, see
            `gald.inference.ld_map.in_one_channel`; None without LD.
        maps: what was recorded of one pass over the whole image, at the one of the inference's
            scales that is nearest to 1, each (1, C, h, w) on the CPU.
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
        """Share of the pixels that get another class without LD."""
        return (
            0.0
            if self.labels_without_ld is None
            else float(np.mean(self.labels != self.labels_without_ld))
        )


def inspect_network(
    network: Predictor, image: Tensor, queries: Sequence[Query] | None = None
) -> NetworkView:
    """Pass an image through a network, with LD and without, and keep what can be seen.

    Args:
        network: in eval mode.
        image: (3, H, W) uint8.
        queries: pixels (X, Y) whose attention is wanted; None takes one inside the largest region
            of each of the commonest predicted classes.

    Raises:
        ValueError: a query is outside of the image.
    """
    check_queries(queries or (), image)
    model = network.model
    here = image.to(next(model.parameters()).device)[None]
    with torch.no_grad():
        labels = _labels(network, here)
        with record(model) as maps:
            model.logits(network.inference.at_network_size(here))
        labels_without_ld = None
        if not isinstance(model.ld, NoDistribution):
            with no_distribution(model):
                labels_without_ld = _labels(network, here)
    chosen = inner_pixels(labels, DEFAULT_QUERIES) if queries is None else list(queries)
    found_map, size = maps.get("ld/map"), image.shape[-2:]
    ld = None
    if found_map is not None:
        ld = resize(in_one_channel(found_map.values), size, model.align_corners)[0, 0].cpu().numpy()
    cells = [cell_of(q, size, maps["ga/input"].shape[-2:], model.align_corners) for q in chosen]
    return NetworkView(
        image=image.permute(1, 2, 0).cpu().numpy(),
        labels=labels,
        labels_without_ld=labels_without_ld,
        ld=ld,
        maps={name: _on_cpu(kept) for name, kept in maps.items()},
        queries=chosen,
        attention=[_on_cpu(maps.attention(*cell)) for cell in cells],
        class_names=network.class_names,
        palette=network.palette,
        slots=(type(model.ga).__name__, type(model.ld).__name__),
    )


@contextmanager
def no_distribution(model: Segmentor) -> Generator[None]:
    """Let local distribution return the context that it is given, for a while."""
    ld = model.ld
    model.ld = NoDistribution()
    try:
        yield
    finally:
        model.ld = ld


def check_queries(queries: Sequence[Query], image: Tensor) -> None:
    """Refuse queries (X, Y) outside of an image (3, H, W)."""
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
    """The cell (row, column) of a map that a pixel (X, Y) of an image lies in."""
    where = []
    for place, pixels, count in zip(reversed(query), size, cells, strict=True):
        if align_corners:
            where.append(round(place * (count - 1) / max(pixels - 1, 1)))
        else:
            where.append(int((place + 0.5) * count / pixels))
    return where[0], where[1]


def inner_pixels(labels: np.ndarray, count: int) -> list[Query]:
    """The pixel (X, Y) furthest from other classes in each of the commonest classes."""
    pixels = np.bincount(labels.ravel(), minlength=256)
    commonest = [k for k in np.argsort(-pixels, kind="stable")[:count] if pixels[k]]
    found = []
    for k in commonest:
        # Beyond the image lies another class, so that no query sits on the border.
        inside = np.pad((labels == k).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        found.append((int(x), int(y)))
    return found


def _labels(network: Predictor, image: Tensor) -> np.ndarray:
    return network.inference.predict(network.model, image).labels[0].cpu().numpy()


def _on_cpu(kept: FeatureMap) -> FeatureMap:
    return FeatureMap(kept.values.float().cpu(), kept.stride, kept.meaning)
