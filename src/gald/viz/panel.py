"""One scene at a glance: image, truth, prediction and what local distribution does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from gald.inference.base import Inference
from gald.model.layers import resize
from gald.model.segmentor import Segmentor

Palette = Sequence[tuple[int, int, int]]
VOID_COLOUR = (0, 0, 0)


def colourise(mask: Tensor, palette: Palette, ignore_index: int = 255) -> np.ndarray:
    """Paint a mask (H, W) of train ids with the palette, void black: uint8 (H, W, 3)."""
    lookup = np.tile(np.array(VOID_COLOUR, np.uint8), (ignore_index + 1, 1))
    lookup[: len(palette)] = palette
    return lookup[mask.cpu().numpy()]


def ld_map(model: Segmentor, image: Tensor, inference: Inference) -> Tensor | None:
    """The local distribution's map, one number per pixel, at the image's size.

    The mean over channels; of weights that sum to 1 the largest, since their mean is the same
    everywhere.

    Args:
        model: the network, in eval mode.
        image: (3, H, W).
        inference: how the network scores images, which says at what size it sees them.

    Returns:
        (H, W), or None where the model distributes nothing.
    """
    with torch.no_grad():
        affinity = model.affinity(model.aggregate(inference.as_seen(image[None])))
    if affinity is None:
        return None
    return resize(in_one_channel(affinity), image.shape[-2:], model.align_corners)[0, 0]


def in_one_channel(affinity: Tensor) -> Tensor:
    """A map (B, C, h, w) in one channel: the mean, or the largest of weights that sum to 1."""
    affinity = affinity.float()
    return affinity.amax(1, keepdim=True) if sums_to_one(affinity) else affinity.mean(1, True)


def sums_to_one(affinity: Tensor) -> bool:
    """Whether the channels of a map (B, C, h, w) are weights of places, not shares of channels."""
    total = affinity.float().sum(1)
    return affinity.shape[1] > 1 and torch.allclose(total, torch.ones_like(total))


def save_panel(
    path: str | Path,
    image: Tensor,
    truth: Tensor,
    prediction: Tensor,
    ld: Tensor | None,
    class_names: Sequence[str],
    palette: Palette,
) -> None:
    """Write image, truth, prediction and LD map side by side, with a legend, as a picture.

    Args:
        path: file to write; its ending chooses the format.
        image: uint8 (3, H, W).
        truth: train ids (H, W), void 255.
        prediction: train ids (H, W).
        ld: (H, W) of floats, or None to leave it out.
        class_names: K names.
        palette: K colours.
    """
    views = [
        ("image", image.permute(1, 2, 0).cpu().numpy()),
        ("truth (void black)", colourise(truth, palette)),
        ("prediction", colourise(prediction, palette)),
    ]
    columns = len(views) + (ld is not None)
    height, width = truth.shape
    figure = Figure(figsize=(4 * columns, 4 * height / width + 1.1), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis, (title, picture) in zip(axes, views, strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title)
    if ld is not None:
        drawn = axes[-1].imshow(ld.cpu().numpy(), cmap="viridis")
        axes[-1].set_title("LD map")
        figure.colorbar(drawn, ax=axes[-1], shrink=0.8)
    for axis in axes:
        axis.set_axis_off()
    add_legend(figure, class_names, palette, columns=11)
    figure.savefig(path)


def add_legend(figure: Figure, class_names: Sequence[str], palette: Palette, columns: int) -> None:
    """Name the colours below a figure whose layout is constrained, in at most so many columns."""
    handles = [
        Patch(color=(red / 255, green / 255, blue / 255), label=name)
        for name, (red, green, blue) in zip(class_names, palette, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns))
