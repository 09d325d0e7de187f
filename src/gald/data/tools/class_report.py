"""`gald data stats NAME`: class frequencies, and weights that balance the loss."""

from rich.console import Console
from rich.table import Table

from gald.data.datamodule import SegmentationDataModule
from gald.data.loading.class_counts import class_weights, pixel_counts

SHARE_OF = "% of labelled pixels; for void, % of all pixels"


def print_classes(data: SegmentationDataModule, name: str, split: str) -> None:
    """Print the percentage of pixels and images of each class, and weights for `gald train`.

    Args:
        data: data module of the dataset.
        name: its name in `data=NAME`.
        split: split to count.
    """
    with_void = pixel_counts(data.make_dataset(split), data.cache_dir)
    counts = with_void[:, :-1]
    weights = class_weights(counts)
    pixels, images = counts.sum(axis=0), (with_void > 0).mean(axis=0)
    shares = [*(pixels / max(1, pixels.sum())), with_void[:, -1].sum() / with_void.sum()]
    table = Table(title=f"{name}, {split}: {len(counts)} images", caption=SHARE_OF)
    table.add_column("class")
    for column in ("pixels %", "images %", "weight"):
        table.add_column(column, justify="right")
    labels, texts = [*data.class_names, "void"], [*(f"{weight:.5g}" for weight in weights), ""]
    for k, label in enumerate(labels):
        occurs = "<0.1" if 0 < images[k] < 0.0005 else f"{100 * images[k]:.1f}"
        table.add_row(label, percent(shares[k]), occurs, texts[k])
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(table)
    console.print("median-frequency weights, as an override of gald train:")
    override = f"'loss.main.class_weight=[{','.join(texts[:-1])}]'"
    console.print(override, soft_wrap=True)


def percent(share: float) -> str:
    """Format a fraction of pixels as a percentage; only 0 is `absent`, and none is 0.00."""
    if not share:
        return "absent"
    return f"{100 * share:.2f}" if share >= 0.00005 else "<0.01"
