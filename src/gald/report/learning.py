"""Section of a report: the curves of the training."""

from collections.abc import Sequence

from gald.errors import to_sentence
from gald.report import figures
from gald.report.curves import Curve, read_curves
from gald.report.layout import Figure, Section
from gald.report.stored import Stored


def curves(run: Stored) -> Section:
    """Plot loss, mIoU and learning rate."""
    section = Section("curves", "Training")
    try:
        found = read_curves(run.folder / "metrics.csv")
    except (OSError, ValueError) as error:
        return section._replace(missing=[f"There are no curves: {to_sentence(error)}."])
    losses = {key: found[key] for key in ("train/loss", "val/loss") if key in found}
    drawn = []
    if losses:
        named = {key.split("/")[0]: curve for key, curve in losses.items()}
        png = figures.curves_chart(named, "Loss", "loss")
        drawn.append(Figure("loss.png", png, f"Loss by step: {_course(losses)}."))
    if "val/miou" in found:
        curve = {"val/miou": found["val/miou"]}
        png = figures.curves_chart(curve, "mIoU on val", "mIoU, %", 100, best=True)
        drawn.append(Figure("val_miou.png", png, f"mIoU on val by step: {_course(curve)}."))
    rates = {key: curve for key, curve in found.items() if key.startswith("lr")}
    if rates:
        png = figures.curves_chart(_distinct(rates), "Learning rate", "learning rate")
        drawn.append(Figure("learning_rate.png", png, f"Learning rate: {_course(rates)}."))
    if not drawn:
        return section._replace(missing=["There are no curves: metrics.csv has none of this run."])
    return section._replace(figures=drawn)


def _course(curves: dict[str, Curve]) -> str:
    """Describe curves in words."""
    parts = (f"{n} from {c.values[0]:.3g} to {c.values[-1]:.3g}" for n, c in curves.items())
    return "; ".join(parts)


def _distinct(rates: dict[str, Curve]) -> dict[str, Curve]:
    """Join learning rates that are equal, with short names of their groups."""
    names: dict[tuple[float, ...], list[str]] = {}
    curves: dict[tuple[float, ...], Curve] = {}
    for key, curve in rates.items():
        values = tuple(curve.values)
        names.setdefault(values, []).append(key.removeprefix("lr-"))
        curves[values] = curve
    kept = list(names)[:4]  # of layer-wise rates, the first ones
    return {_group(names[values]): curves[values] for values in kept}


def _group(names: Sequence[str]) -> str:
    first = names[0]
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"
