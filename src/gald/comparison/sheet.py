"""Contact sheet of the most influential images, predicted again by both networks."""

from collections.abc import Sequence

import numpy as np
import torch

from gald.comparison.again import dataset_of, network_of
from gald.comparison.runs import EvaluatedRun
from gald.data.labels import VOID
from gald.painting import BLUE, ORANGE, add_legend, colourise, new_figure, short_name, to_png


def contact_sheet(
    a: EvaluatedRun,
    b: EvaluatedRun,
    split: str,
    changes: Sequence[tuple[str, str]],
    run_names: tuple[str, str],
    trust: Sequence[str] = (),
) -> bytes:
    """Draw image, ground truth, both predictions and their differences, one row per image.

    Args:
        a: the first run; its checkpoint and its data must be available.
        b: the second run; its checkpoint must be available.
        split: the split of both evaluations.
        changes: names of images, and the label to write beside each.
        run_names: names of the two runs.
        trust: packages with classes that the files may name too.

    Returns:
        The bytes of a png file.

    Raises:
        FileNotFoundError: a checkpoint or the data is not available.
        ValueError: a checkpoint cannot be used, or the data has no image of a given name.
        RefusedError: a file would call other code.
    """
    networks = [network_of(run, trust) for run in (a, b)]
    dataset = dataset_of(a, networks[0], split, trust)
    index_of = {dataset.image_name(index): index for index in range(len(dataset))}
    first, second = map(short_name, run_names)
    legend = f"blue: only {second} is right\norange: only {first}; dark: both err apart"
    titles = ("image", "ground truth (void black)", first, second, legend)
    figure = new_figure(15, 2.3 * len(changes) + 0.8, dpi=90)
    grid = figure.subplots(len(changes), len(titles), squeeze=False)
    palette, names = networks[0].palette, networks[0].class_names
    for row, (name, text) in zip(grid, changes, strict=True):
        if name not in index_of:
            raise ValueError(f"the available data has no image {name} in {split}")
        item = dataset[index_of[name]]
        ground_truth = item["mask"]
        predictions = [
            torch.from_numpy(network.predict(item["image"], confidence=False, ld_map=False).labels)
            for network in networks
        ]
        views = [item["image"].permute(1, 2, 0).numpy()]
        views += [colourise(mask.numpy(), palette) for mask in (ground_truth, *predictions)]
        views.append(changed_pixels(ground_truth, *predictions))
        for axis, view in zip(row, views, strict=True):
            axis.imshow(view, interpolation="nearest")
            axis.set_xticks([], [])
            axis.set_yticks([], [])
        row[0].set_ylabel(text, fontsize=8)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=10 if len(title) < 30 else 7)
    add_legend(figure, names, palette, columns=11)
    return to_png(figure)


def changed_pixels(ground_truth: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Paint orange where only A is right, blue where only B is, dark grey where both err apart."""
    right_a, right_b = a == ground_truth, b == ground_truth
    view = np.full((*ground_truth.shape, 3), 200, np.uint8)
    view[((a != b) & ~right_a & ~right_b).numpy()] = 140
    view[(right_a & ~right_b).numpy()] = _rgb(ORANGE)
    view[(right_b & ~right_a).numpy()] = _rgb(BLUE)
    view[(ground_truth == VOID).numpy()] = 200
    return view


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
