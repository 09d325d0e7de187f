"""Report section of a sweep: one image as the network of every arm sees it."""

from collections.abc import Sequence

import numpy as np
import torch

from gald.comparison.again import dataset_of, network_of
from gald.comparison.report import Section
from gald.comparison.sheet import changed_pixels
from gald.painting import add_legend, colourise, new_figure, short_name, to_png
from gald.sweep.table.arms import Arm, SweepRuns

MEDIAN = "median"
DRAWN = 7  # arms beside the baseline


def one_image(sweep: SweepRuns, baseline: Arm, image: str, trust: Sequence[str] = ()) -> Section:
    """Draw one image: the predictions of all arms, and which pixels change from the baseline.

    The networks are those of the first seed of the baseline.

    Args:
        sweep: the runs of the sweep; their checkpoints and their data must be available.
        baseline: the arm that the others are compared with.
        image: name of the image, or `median`: the one on which the arm with the largest change in
            right pixels, up or down, has its median change. So nobody chooses the image.
        trust: packages with classes that the files may name too.

    Raises:
        FileNotFoundError: a checkpoint or the data is not available.
        ValueError: a checkpoint cannot be used, there is no such image, or no arm has that seed.
        RefusedError: a file would call other code.
    """
    seed = next(iter(baseline.runs))
    arms = [baseline, *(a for a in sweep.arms if a is not baseline and seed in a.runs)][: DRAWN + 1]
    if len(arms) < 2:
        raise ValueError(f"no arm but {baseline.label} has a run with seed {seed}; train one")
    rule, left_out = "", len(sweep.arms) - len(arms)
    if image == MEDIAN:
        image, rule = _median_image(arms, seed)
    networks = [network_of(arm.runs[seed], trust) for arm in arms]
    dataset = dataset_of(arms[0].runs[seed], networks[0], sweep.split, trust)
    index_of = {dataset.image_name(index): index for index in range(len(dataset))}
    if image not in index_of:
        raise ValueError(
            f"{sweep.split} has no image {image} among its {len(index_of)}; --image "
            f"{next(iter(index_of))} is the first"
        )
    item = dataset[index_of[image]]
    truth, palette = item["mask"], networks[0].palette
    predictions = [
        torch.from_numpy(network.predict(item["image"], confidence=False, ld_map=False).labels)
        for network in networks
    ]
    height, width = truth.shape
    columns = len(arms) + 1
    figure = new_figure(2.6 * columns, 2 * 2.6 * height / width + 1.0, dpi=90)
    grid = figure.subplots(2, columns)
    views = [(item["image"].permute(1, 2, 0).numpy(), colourise(truth.numpy(), palette))]
    views.append((colourise(predictions[0].numpy(), palette), _wrong(truth, predictions[0])))
    for labels in predictions[1:]:
        painted = colourise(labels.numpy(), palette)
        views.append((painted, changed_pixels(truth, predictions[0], labels)))
    titles = ["image; below, the ground truth", f"{baseline.label}; below, its errors"]
    titles += [short_name(arm.label) for arm in arms[1:]]
    for column, pair, title in zip(grid.T, views, titles, strict=True):
        for axis, view in zip(column, pair, strict=True):
            axis.imshow(view, interpolation="nearest")
            axis.set_axis_off()
        column[0].set_title(title, fontsize=8)
    add_legend(figure, networks[0].class_names, palette, columns=11)
    words = (
        f"{image} of {sweep.split}, by the networks of seed {seed}.{rule} Below each arm: blue "
        f"pixels are right only there, orange ones only in {baseline.label}; in dark pixels both "
        "err apart."
    )
    if left_out:
        words += f" {left_out} more arms are not drawn: {DRAWN} fit, and each needs that seed."
    return Section("One image", words, (), [], ("image.png", to_png(figure)))


def _median_image(arms: Sequence[Arm], seed: int) -> tuple[str, str]:
    """Return the name of the image of the median change, and the rule in words."""
    names = arms[0].runs[seed].images.names
    right = np.stack([arm.runs[seed].class_counts[:, 0].sum(-1) for arm in arms]).astype(float)
    change = right[1:] - right[0]
    arm = int(np.abs(change.sum(1)).argmax())
    middle = np.argsort(change[arm], kind="stable")[len(change[arm]) // 2]
    rule = f" It is the image of the median change in right pixels of {arms[1 + arm].label}."
    return names[int(middle)], rule


def _wrong(truth: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Paint orange where the labels are wrong."""
    return changed_pixels(truth, truth, labels)
