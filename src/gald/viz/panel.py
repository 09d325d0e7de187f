"""Panel for one sample: image, ground truth, prediction and LD map side by side."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gald.painting import Palette, add_legend, colourise, new_figure, to_png
from gald.run.atomic import atomic_file


def save_panel(
    path: str | Path,
    image: Tensor,
    ground_truth: Tensor,
    prediction: Tensor,
    ld: Tensor | None,
    class_names: Sequence[str],
    palette: Palette,
) -> None:
    """Draw image, ground truth, prediction and LD map side by side, with a legend, and save them.

    Args:
        path: png file to write.
        image: uint8 (3, H, W).
        ground_truth: train ids (H, W), void 255.
        prediction: train ids (H, W).
        ld: LD map (H, W) of floats, or None to leave it out.
        class_names: K names.
        palette: K colours.
    """
    views = [
        ("image", image.permute(1, 2, 0).cpu().numpy()),
        ("ground truth (void black)", colourise(ground_truth.cpu().numpy(), palette)),
        ("prediction", colourise(prediction.cpu().numpy(), palette)),
    ]
    columns = len(views) + (ld is not None)
    height, width = ground_truth.shape
    figure = new_figure(4 * columns, 4 * height / width + 1.1)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis, (title, pixels) in zip(axes, views, strict=False):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(title)
    if ld is not None:
        drawn = axes[-1].imshow(ld.cpu().numpy(), cmap="viridis")
        axes[-1].set_title("LD map")
        figure.colorbar(drawn, ax=axes[-1], shrink=0.8)
    for axis in axes:
        axis.set_axis_off()
    add_legend(figure, class_names, palette, columns=11)
    with atomic_file(Path(path)) as partial:
        partial.write_bytes(to_png(figure))
