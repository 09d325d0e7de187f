"""The worst and best images of an evaluation, predicted again: image, labels, overlay, errors."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from gald.comparison.runs import EvaluatedRun
from gald.data.dataset import BaseDataset, Item
from gald.data.labels import VOID
from gald.inference import Inference
from gald.model.network import Network
from gald.model.truth import shown_to
from gald.painting import Palette, colourise

SHOWN = 4  # worst images, and best ones
WIDE, TALL = 320, 400  # largest size of one view in pixels
GAP = 4
ERROR = (213, 94, 0)  # of wrong pixels: the orange of charts
TITLES = ("image", "ground truth (void black)", "prediction over the image", "errors (orange)")


class Source(NamedTuple):
    """Where the images come from, and the network that predicts them.

    Attributes:
        dataset: the labelled images.
        predict: function from an item of the dataset to train ids (H, W) uint8.
        palette: colours of the classes.
    """

    dataset: BaseDataset
    predict: Callable[[Item], np.ndarray]
    palette: Palette


class Chosen(NamedTuple):
    """An image of the report.

    Attributes:
        kind: `worst` or `best`.
        name: of the image.
        score: mean IoU over its classes, a fraction.
        accuracy: share of its pixels that are predicted correctly.
        place: index into the images of the evaluation.
    """

    kind: str
    name: str
    score: float
    accuracy: float
    place: int


def choose(run: EvaluatedRun, scores: np.ndarray) -> list[Chosen]:
    """Choose the images with the lowest and the highest mean IoU (N,), none of them twice."""
    known = np.flatnonzero(~np.isnan(scores))
    order = known[np.argsort(scores[known], kind="stable")]
    count = min(SHOWN, max(1, len(order) // 2))
    worst, best = order[:count], order[count:][::-1][:count]
    hits, true, _ = np.moveaxis(run.class_counts.sum(-1), -1, 0)
    names = run.images.names
    return [
        Chosen(kind, names[i], float(scores[i]), float(hits[i] / max(1, true[i])), int(i))
        for kind, group in (("worst", worst), ("best", best))
        for i in group
    ]


def draw(run: EvaluatedRun, chosen: Sequence[Chosen], source: Source) -> tuple[list[bytes], float]:
    """Predict the chosen images again, and draw each with its four views.

    Args:
        run: the evaluation; its true pixels must be those of the images.
        chosen: the images.
        source: the images, and the network.

    Returns:
        a png for each image; and the largest share of an image's pixels by which the predictions
        differ from the counts of the evaluation, which another device or precision can cause.

    Raises:
        ValueError: the data has no image of a given name, or its masks have changed.
    """
    dataset = source.dataset
    index_of = {dataset.image_name(index): index for index in range(len(dataset))}
    pictures, change = [], 0.0
    for one in chosen:
        if one.name not in index_of:
            raise ValueError(f"the data has no image {one.name}")
        item = dataset[index_of[one.name]]
        mask = item["mask"].numpy()
        labels = source.predict(item)
        counts = run.class_counts[one.place]
        valid = mask != VOID
        size = counts.shape[-1]
        if not np.array_equal(np.bincount(mask[valid], minlength=size), counts[1]):
            raise ValueError(f"the mask of {one.name} has changed since the evaluation")
        predicted = np.bincount(labels[valid], minlength=256)
        moved = np.abs(predicted[:size] - counts[2]).sum() / max(1, valid.sum())
        change = max(change, float(moved))
        pixels = item["image"].permute(1, 2, 0).numpy()
        pictures.append(_tile(_views(pixels, mask, labels, source.palette)))
    return pictures, change


def predict_with(
    model: Network, inference: Inference, device: torch.device
) -> Callable[[Item], np.ndarray]:
    """Return a network's prediction for an item of a dataset, for `Source`."""

    def labels(item: Item) -> np.ndarray:
        image, mask = (item[key].to(device)[None] for key in ("image", "mask"))
        with torch.inference_mode():
            return inference.predict(model, shown_to(model, image, mask)).labels[0].cpu().numpy()

    return labels


def _views(
    image: np.ndarray, mask: np.ndarray, labels: np.ndarray, palette: Palette
) -> list[np.ndarray]:
    """Return image, ground truth, overlay and errors, each (h, w, 3) uint8, of one small size."""
    height, width = mask.shape
    scale = min(WIDE / width, TALL / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photo = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    true, predicted = (
        cv2.resize(part, size, interpolation=cv2.INTER_NEAREST_EXACT) for part in (mask, labels)
    )
    overlay = cv2.addWeighted(photo, 0.45, colourise(predicted, palette), 0.55, 0)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    light = cv2.addWeighted(grey, 0.5, np.full_like(grey, 255), 0.5, 0)
    errors = cv2.cvtColor(light, cv2.COLOR_GRAY2RGB)
    errors[true != predicted] = ERROR
    errors[true == VOID] = 0
    return [photo, colourise(true, palette), overlay, errors]


def _tile(views: Sequence[np.ndarray]) -> bytes:
    """Arrange four views two by two with their titles, as a png."""
    height, width = views[0].shape[:2]
    sheet = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for n, (view, title) in enumerate(zip(views, TITLES, strict=True)):
        left, top = (n % 2) * (width + GAP), (n // 2) * (height + GAP)
        sheet.paste(Image.fromarray(view), (left, top))
        if width < 160:  # the text would cover the view
            continue
        box = pen.textbbox((left + 6, top + 4), title, font)
        pen.rectangle((left, top, box[2] + 6, box[3] + 4), fill="white")
        pen.text((left + 6, top + 4), title, "black", font)
    done, png = cv2.imencode(".png", np.asarray(sheet)[..., ::-1])
    assert done, "a png of 8-bit colours"
    return png.tobytes()
