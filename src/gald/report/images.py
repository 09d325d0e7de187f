"""Section of a report: the worst and best images."""

import numpy as np

from gald.errors import to_sentence
from gald.report import figures, tables
from gald.report.layout import Figure, Section
from gald.report.pictures import Chosen, Source, choose, draw
from gald.report.stored import Stored

_TOLERATED = 1e-3  # share of an image's pixels that may be predicted differently without a word


def images(run: Stored, source: Source | None, fault: str) -> Section:
    """Rank the images, and show the first and the last.

    Args:
        run: the results.
        source: the images and the network, if they are available.
        fault: why they are not.
    """
    section = Section("images", "Worst and best images")
    if run.evaluated is None:
        return section._replace(missing=[f"The images are not ranked: {run.missing}."])
    scores = tables.image_scores(run)
    chosen = choose(run.evaluated, scores)
    known = scores[~np.isnan(scores)]
    if not chosen:
        return section._replace(missing=["The images are not ranked: all their pixels are void."])
    words = [
        "Images are ranked by their mean IoU over the classes that occur in them, in the ground "
        "truth or the prediction. The mIoU above is over all images together."
    ]
    rows = [
        [tables.Cell(one.name), tables.Cell(one.kind), *map(tables.Cell, _numbers(one))]
        for one in chosen
    ]
    header = ("image", "rank", "mean IoU, % ↑", "pixel accuracy, % ↑")
    ranked = tables.Table("The images by name", header, rows, ("rank",))
    alt = f"Histogram of the mean IoU of {len(known)} images, median {100 * np.median(known):.1f}%."
    drawn = [Figure("image_scores.png", figures.images_chart(known), alt)]
    section = section._replace(words=words)
    pictures, change = [], 0.0
    try:
        if source is not None:
            pictures, change = draw(run.evaluated, chosen, source)
    except (OSError, ValueError) as error:
        fault = to_sentence(error)
    if not pictures:
        sentence = f"The images are not shown: {fault}."
        return section._replace(figures=drawn, missing=[sentence], tables=[ranked])
    if change > _TOLERATED:
        words.append(
            f"The images were predicted again for this report. Up to {100 * change:.1f}% of an "
            "image's pixels now have another class, as on another device or in another precision; "
            "the numbers are those of the evaluation."
        )
    words.append(
        "Each picture has the image, its ground truth, the prediction over the image, and the "
        "errors in orange; void is black."
    )
    ranks, shown = {"worst": 0, "best": 0}, []
    for one, png in zip(chosen, pictures, strict=True):
        ranks[one.kind] += 1
        iou, accuracy = _numbers(one)
        caption = (
            f"{one.kind} {ranks[one.kind]}: {one.name} · mean IoU {iou}%, accuracy {accuracy}%"
        )
        alt = f"Image, ground truth, prediction and errors of {one.name}, {one.kind} images."
        shown.append(Figure(f"{one.kind}_{ranks[one.kind]}.png", png, alt, caption))
    return section._replace(figures=drawn, pictures=shown)


def _numbers(one: Chosen) -> tuple[str, str]:
    return tables.percent(one.score), tables.percent(one.accuracy)
