"""Figures of a network view; every value is encoded in luminance, so that they print in grey."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gald.inference.ld_map import sums_to_one
from gald.painting import add_legend, colourise, new_figure
from gald.viz.features import common_colours, distinct_features
from gald.viz.network_view import NetworkView, Query

GROUPS = 8  # limit of groups in which channels are averaged
CLASSES = 12  # limit of classes with an axis of their own
COLUMNS = 4
WIDE = 3.6  # width of one axis in inches


def ld_figure(view: NetworkView) -> Figure:
    """Draw the LD map beside the image, and over it with the predicted boundaries."""
    assert view.ld is not None, "the network has an LD"
    figure, axes = _grid(view, 3, columns=3)
    axes[0].imshow(view.image)
    axes[0].set_title("image")
    drawn = axes[1].imshow(view.ld, cmap="viridis")
    axes[1].set_title("LD map")
    grey = view.image.mean(2)
    axes[2].imshow(grey, cmap="gray")
    axes[2].imshow(view.ld, cmap="viridis", alpha=0.6)
    axes[2].imshow(_edges(view.labels), cmap="gray", vmin=0, vmax=1)
    axes[2].set_title("over the image; white: predicted boundaries")
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    figure.suptitle(f"{view.slots[1]}: {_in_one_channel(view)}")
    return figure


def groups_figure(view: NetworkView) -> Figure:
    """Draw the LD map by groups of channels, or the weight of each neighbour, on one scale."""
    ld_values = view.maps["ld/map"].values
    channels = ld_values.shape[1]
    if sums_to_one(ld_values):
        parts, side = list(ld_values[0].numpy()), int(channels**0.5)
        names = [_offset(i, side) for i in range(channels)]
        title, columns = "weight of each neighbour of a cell (rows down, columns right)", side
    else:
        chunks = ld_values[0].tensor_split(min(channels, GROUPS))
        parts = [chunk.mean(0).numpy() for chunk in chunks]
        ends = np.cumsum([len(chunk) for chunk in chunks])
        spans = [(end - len(chunk), end - 1) for end, chunk in zip(ends, chunks, strict=True)]
        names = [f"channel {a}" if a == b else f"channels {a} to {b}, mean" for a, b in spans]
        title, columns = f"LD map of {channels} channels", COLUMNS
    figure, axes = _grid(view, len(parts), columns=columns)
    low, high = min(p.min() for p in parts), max(p.max() for p in parts)
    for axis, part, name in zip(axes, parts, names, strict=True):
        drawn = axis.imshow(part, cmap="viridis", vmin=low, vmax=high)
        axis.set_title(name)
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    figure.suptitle(f"{view.slots[1]}: {title}")
    return figure


def classes_figure(view: NetworkView) -> Figure:
    """Draw the LD map inside each predicted class, most frequent first, with its mean there."""
    assert view.ld is not None, "the network has an LD"
    pixels = np.bincount(view.labels.ravel(), minlength=256)[: len(view.class_names)]
    present = np.count_nonzero(pixels)
    order = np.argsort(-pixels, kind="stable")[: min(CLASSES, present)]
    figure, axes = _grid(view, len(order), columns=COLUMNS)
    for axis, k in zip(axes, order, strict=True):
        inside = np.where(view.labels == k, view.ld, np.nan)
        axis.set_facecolor("white")
        drawn = axis.imshow(inside, cmap="viridis", vmin=view.ld.min(), vmax=view.ld.max())
        percent = 100 * pixels[k] / view.labels.size
        axis.set_title(
            f"{view.class_names[k]}, {percent:.1f}% of pixels: mean {np.nanmean(inside):.3f}"
        )
        axis.set_axis_on()
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    subset = f"; the {len(order)} most frequent of {present}" if present > len(order) else ""
    figure.suptitle(f"{view.slots[1]}: LD map inside each predicted class{subset}")
    return figure


def attention_figure(view: NetworkView) -> Figure:
    """Draw each query in the image, and the influence of every cell on GA there."""
    count = len(view.queries)
    figure, axes = _grid(view, 2 * count, columns=count)
    for i, (query, attention) in enumerate(zip(view.queries, view.attention, strict=True)):
        axes[i].imshow(view.image)
        axes[i].set_title(f"query {query[0]} {query[1]}")
        draw_attention(axes[count + i], view, attention.values[0, 0].numpy())
        _mark(axes[i], query)
        _mark(axes[count + i], query)
    figure.suptitle(
        f"{view.slots[0]}: influence of every cell on the query's output, sum of |d out / d in|\n"
        "dark: 0, bright: 99th percentile of the other cells; the query's own cell is off scale"
    )
    return figure


def draw_attention(axis: Axes, view: NetworkView, attention: np.ndarray) -> None:
    """Draw one query's attention over the image's area, on a scale that ignores its own cell."""
    others = np.delete(attention.ravel(), attention.argmax())
    top = max(float(np.quantile(others, 0.99)), 1e-12) if others.size else 1.0
    height, width = view.labels.shape
    area = (-0.5, width - 0.5, height - 0.5, -0.5)
    axis.imshow(attention, cmap="viridis", vmin=0, vmax=top, extent=area)


def features_figure(view: NetworkView) -> Figure:
    """Draw the features between the slots by common principal components, and the first one."""
    names, features = distinct_features(view)
    colours, first = common_colours([f[0].numpy() for f in features])
    figure, axes = _grid(view, 2 * len(names), columns=len(names))
    low, high = min(f.min() for f in first), max(f.max() for f in first)
    for i, name in enumerate(names):
        axes[i].imshow(colours[i])
        axes[i].set_title(name)
        drawn = axes[len(names) + i].imshow(first[i], cmap="gray", vmin=low, vmax=high)
        axes[len(names) + i].set_title("first component")
    figure.colorbar(drawn, ax=axes[len(names) :], shrink=0.8)
    figure.suptitle("features: first three principal components of all maps together as RGB")
    return figure


def prediction_figure(view: NetworkView) -> Figure:
    """Draw the prediction with LD and without LD, and the pixels where they differ."""
    views = [("image", view.image), ("prediction", _painted(view, view.labels))]
    if view.labels_without_ld is not None:
        differ = np.where(view.labels != view.labels_without_ld, 255, 0).astype(np.uint8)
        views += [
            ("prediction without LD", _painted(view, view.labels_without_ld)),
            (f"white: class changes, {100 * view.changed:.1f}%", np.dstack([differ] * 3)),
        ]
    figure, axes = _grid(view, len(views), columns=len(views))
    for axis, (title, pixels) in zip(axes, views, strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(title)
    if view.labels_without_ld is not None:
        figure.suptitle(
            "LD removed from a network trained with it: this shows what its head relies on,\n"
            "not what a network trained without LD would predict"
        )
    _legend(figure, view)
    return figure


def side_by_side(views: Sequence[NetworkView], names: Sequence[str], common_scale: bool) -> Figure:
    """Draw a row for each view: prediction, changes by LD, LD map, attention of the first query.

    Args:
        views: of networks with the same classes, on the same image and queries.
        names: of the rows.
        common_scale: use one scale for all LD maps, as for checkpoints of one network.
    """
    figure, axes = _grid(views[0], 4 * len(views), columns=4)
    ld_maps = [view.ld for view in views if view.ld is not None]
    span = (min(m.min() for m in ld_maps), max(m.max() for m in ld_maps)) if ld_maps else (0, 1)
    for i, (view, name) in enumerate(zip(views, names, strict=True)):
        row = axes[4 * i : 4 * i + 4]
        row[0].imshow(_painted(view, view.labels), interpolation="nearest")
        row[0].set_title(f"{name}\nprediction")
        row[1].imshow(view.image)
        row[1].set_title(f"{view.slots[0]}, {view.slots[1]}\nimage")
        if view.labels_without_ld is not None:
            row[1].imshow(view.labels != view.labels_without_ld, cmap="gray", vmin=0, vmax=1)
            row[1].set_title(f"white: class changes\nwithout LD, {100 * view.changed:.1f}%")
        row[2].set_title("LD map" if view.ld is not None else "no LD map")
        if view.ld is not None:
            low, high = span if common_scale else (view.ld.min(), view.ld.max())
            drawn = row[2].imshow(view.ld, cmap="viridis", vmin=low, vmax=high)
            figure.colorbar(drawn, ax=row[2], shrink=0.8)
        draw_attention(row[3], view, view.attention[0].values[0, 0].numpy())
        _mark(row[3], view.queries[0])
        row[3].set_title(
            f"{view.slots[0]}: influence on\nquery {view.queries[0][0]} {view.queries[0][1]}"
        )
    _legend(figure, *views)
    return figure


def _grid(view: NetworkView, count: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Create a figure of `count` axes with the image's aspect ratio; return it and its axes."""
    height, width = view.labels.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(WIDE * columns + 0.9, (WIDE * height / width + 0.35) * rows + 0.9)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
        axis.set_anchor("N")
    return figure, axes[:count]


def _painted(view: NetworkView, labels: np.ndarray) -> np.ndarray:
    return colourise(labels, view.palette)


def _legend(figure: Figure, *views: NetworkView) -> None:
    """Add a legend of the predicted classes only, since 171 names would fill a page."""
    parts = [part for view in views for part in (view.labels, view.labels_without_ld)]
    painted = [part for part in parts if part is not None]
    classes = range(len(views[0].class_names))
    present = [k for k in np.unique(np.stack(painted)).tolist() if k in classes]
    names = [views[0].class_names[k] for k in present]
    palette = [views[0].palette[k] for k in present]
    add_legend(figure, names, palette, columns=8)


def _mark(axis: Axes, query: Query) -> None:
    for colour, width in (("black", 3), ("white", 1.5)):
        axis.plot(*query, "o", ms=9, mfc="none", mec=colour, mew=width)


def _edges(labels: np.ndarray) -> np.ma.MaskedArray:
    """Return 1 where the right or lower neighbour has another class, masked elsewhere."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    return np.ma.masked_where(~edge, edge.astype(float))


def _in_one_channel(view: NetworkView) -> str:
    ld_values = view.maps["ld/map"].values
    if sums_to_one(ld_values):
        return f"the largest of {ld_values.shape[1]} weights"
    return "LD map" if ld_values.shape[1] == 1 else f"mean of {ld_values.shape[1]} channels"


def _offset(index: int, side: int) -> str:
    row, column = divmod(index, side)
    return f"{row - side // 2:+d} {column - side // 2:+d}"
