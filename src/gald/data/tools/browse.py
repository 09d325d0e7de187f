"""`gald data browse NAME`: one figure of many images, overlaid with their labels."""

import difflib
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from gald.data.datamodule import SegmentationDataModule
from gald.data.dataset import BaseDataset, Item
from gald.data.labels import VOID
from gald.data.loading.class_counts import class_counts
from gald.data.loading.sampler import CropRequest
from gald.painting import add_legend, colourise, new_figure, to_png
from gald.run.atomic import atomic_file

_COLUMNS = 6
_TILE = 320  # pixels
_TALLEST = 1.5  # height / width; taller images are drawn smaller


def browse(
    data: SegmentationDataModule,
    name: str,
    split: str = "train",
    count: int = 24,
    class_name: str | None = None,
    output: Path | None = None,
    augment: bool = False,
) -> Path:
    """Draw images overlaid with their labels; print and return the path of the figure.

    With `augment` it draws the crops that the first epoch of a training begins with, or those of
    the images with most pixels of the class, bit-equal to what the network would see.

    Args:
        data: data module of the dataset.
        name: its name in `data=NAME`.
        split: split of the images.
        count: largest number of images to draw.
        class_name: draw the images with most pixels of this class; None draws images spread evenly
            over the split.
        output: a new png; None is a file in `runs/browse` named by dataset, split and time.
        augment: draw crops of the first epoch instead of whole images.

    Raises:
        ValueError: the class is unknown or occurs in no image, the count is below 1, the output is
            not a png or exists, or crops of another split than `train` are asked for.
    """
    if count < 1:
        raise ValueError(f"--count is {count}; it must be at least 1")
    if augment and split != "train":
        raise ValueError(f"--augment draws crops of train, but --split is {split}; leave one out")
    if output is None:
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        output = Path("runs/browse") / f"{name}_{'crops' if augment else split}_{now}.png"
    if output.suffix != ".png":
        raise ValueError(f"--output {output} is not a png; choose a name that ends in .png")
    if output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    dataset = data.make_dataset(split)
    if class_name is None:
        chosen = _spread(len(dataset), count)
    else:
        train_id = _train_id(class_name, data.class_names)
        chosen = _richest(class_counts(dataset, data.cache_dir)[:, train_id], count)
        if not chosen:
            raise ValueError(f"no image of {split} has {class_name}; choose another class or split")
    if augment:
        chosen = _save_crops(output, data, dataset, chosen if class_name else None, count)
        print(f"{len(chosen)} crops of the first epoch: {output}")
        return output
    save_sheet(output, dataset, chosen)
    print(f"{len(chosen)} of {len(dataset)} images: {output}")
    return output


def _save_crops(
    output: Path,
    data: SegmentationDataModule,
    dataset: BaseDataset,
    chosen: Sequence[int] | None,
    count: int,
) -> list[int]:
    """Save a figure of the first epoch's crops, of chosen images or in order; return the images."""
    data.train_dataset = dataset
    data.check()
    if chosen is None:
        requests = list(islice(chain.from_iterable(data.requests()), count))
    else:
        requests = [CropRequest(epoch=0, image=index) for index in chosen]
    crops, images = data.crops(), [request.image for request in requests]
    save_sheet(output, dataset, images, (crops[request] for request in requests))
    return images


def _spread(size: int, count: int) -> list[int]:
    """Return evenly spaced indices from the first to the last image."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(count, size))})


def _richest(pixels: np.ndarray, count: int) -> list[int]:
    """Return indices of the images with most pixels of a class, without images that lack it."""
    order = np.argsort(-pixels, kind="stable")[:count]
    return [int(index) for index in order if pixels[index]]


def _train_id(wanted: str, class_names: Sequence[str]) -> int:
    """Return the train id of a class name, ignoring case.

    Raises:
        ValueError: there is no such class.
    """
    known = [name.lower() for name in class_names]
    if wanted.lower() in known:
        return known.index(wanted.lower())
    near = difflib.get_close_matches(wanted.lower(), known, n=1)
    hint = f"did you mean {class_names[known.index(near[0])]}?" if near else ""
    raise ValueError(
        f"there is no class {wanted!r}; {hint or 'choose one of ' + ', '.join(class_names)}"
    )


def save_sheet(
    path: Path, dataset: BaseDataset, chosen: Sequence[int], items: Iterable[Item] | None = None
) -> None:
    """Save a figure of images overlaid with their labels, with a legend of the classes in it.

    Args:
        path: the png; it appears when it is complete.
        dataset: dataset of the images.
        chosen: indices of the images.
        items: what to draw of each; None draws the whole images.
    """
    columns = min(_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    tiles, seen = [], np.zeros(256, bool)
    for item in items or (dataset[index] for index in chosen):
        seen[np.unique(item["mask"].numpy())] = True
        tiles.append(_tile(item["image"].permute(1, 2, 0).numpy(), item["mask"].numpy(), dataset))
    shown = np.flatnonzero(seen[: len(dataset.class_names)])
    # A row is as high as its highest tile; the legend has `names` entries per line.
    heights = [min(_TALLEST, len(tile) / tile.shape[1]) for tile in tiles]
    inches = 2.4 * sum(max(heights[r * columns : (r + 1) * columns]) + 0.12 for r in range(rows))
    names = max(columns, 3)
    inches += 0.5 + 0.22 * math.ceil(len(shown) / names)
    figure = new_figure(2.4 * names, inches)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, tile, index in zip(axes, tiles, chosen, strict=False):
        axis.imshow(tile)
        name = dataset.image_name(index)
        axis.set_title(name if len(name) < 36 else f"...{name[-33:]}", fontsize=6, parse_math=False)
    add_legend(
        figure, [dataset.class_names[k] for k in shown], [dataset.palette[k] for k in shown], names
    )
    with atomic_file(path) as partial:
        partial.write_bytes(to_png(figure))


def _tile(image: np.ndarray, mask: np.ndarray, dataset: BaseDataset) -> np.ndarray:
    """Shrink image and mask, and blend the image with the class colours except on void."""
    height, width = mask.shape
    scale = min(1.0, _TILE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    colours = colourise(mask, dataset.palette)
    mixed = cv2.addWeighted(image, 0.4, colours, 0.6, 0)
    return np.where((mask == VOID)[..., None], image, mixed)
