"""Screen table of a run's scores."""

import math
from collections.abc import Sequence

from rich.table import Table

from gald.metrics.base import CountMetric
from gald.run.results import SPLITS, Results


def score_table(
    results: Results, class_names: Sequence[str], metrics: Sequence[CountMetric]
) -> Table:
    """Build a table: IoU of each class, then one score per metric, for each split with results."""
    splits = [s for s in SPLITS if f"{s}/miou" in results]
    table = Table("class", title="IoU in %")
    for split in splits:
        table.add_column(split, justify="right")

    def row(label: str, key: str, factor: float = 100) -> list[str]:
        values = [results[f"{split}/{key}"] for split in splits]
        return [label, *("absent" if math.isnan(v) else f"{factor * v:.1f}" for v in values)]

    for name in class_names:
        table.add_row(*row(name, f"iou/{name}"))
    table.add_section()
    table.add_row(*row("mIoU", "miou"), style="bold")
    table.add_row("classes present", *(str(results[f"{s}/classes_present"]) for s in splits))
    table.add_row(*row("pixel accuracy", "accuracy"))
    keys = {key.removeprefix(f"{splits[0]}/") for key in results}
    for metric in metrics:
        headline = metric.headline(keys, class_names)
        if headline is None or headline[0] == "miou":
            continue
        key, label = headline
        unit = "" if metric.unit == "%" else f", {metric.unit}"
        table.add_row(*row(f"{label}{unit}", key, metric.factor))
    return table
