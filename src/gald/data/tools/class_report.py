"""`gald data stats NAME`: how often each class occurs, and weights that balance the loss."""

from rich.console import Console
from rich.table import Table

from gald.data.datamodule import SegmentationDataModule
from gald.data.loading.class_counts import class_weights, pixel_counts

SHARE_OF = "% of labelled pixels, void of all"


def print_classes(data: SegmentationDataModule, name: str, split: str) -> None:
    """Print each class's share of pixels and images, and weights to paste into a command.

    Args:
        data: the dataset's module.
        name: its name in `data=NAME`.
        split: what to count.
    """
    with_void = pixel_counts(data.make_dataset(split), data.cache_dir)
    counts = with_void[:, :-1]
    weights = class_weights(counts)
    pixels, holders = counts.sum(axis=0), (with_void > 0).mean(axis=0)
    shares = [*(pixels / max(1, pixels.sum())), with_void[:, -1].sum() / with_void.sum()]
    table = Table(title=f"{name}, {split}: {len(counts)} images", caption=SHARE_OF)
    table.add_column("class")
    for column in ("pixels %", "images %", "weight"):
        table.add_column(column, justify="right")
    labels, written = [*data.class_names, "void"], [*(f"{weight:.4f}" for weight in weights), ""]
    for k, label in enumerate(labels):
        table.add_row(label, percent(shares[k]), f"{100 * holders[k]:.1f}", written[k])
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print("median-frequency weights, to paste into gald train:")
    override = f"'loss.main.class_weight=[{','.join(written[:-1])}]'"
    console.print(override, soft_wrap=True)


def percent(share: float) -> str:
    """Word a share of pixels, so that none at all does not look like few."""
    return f"{100 * share:.2f}" if share else "absent"
