"""The page of a report: headline, and the sections in order."""

from collections.abc import Callable

from gald.comparison.names import run_names
from gald.errors import to_sentence
from gald.report import tables
from gald.report.images import images
from gald.report.layout import Page
from gald.report.learning import curves
from gald.report.pictures import Source
from gald.report.places import boundaries
from gald.report.sections import calibration, classes, costs, provenance, scores
from gald.report.stored import Stored
from gald.run.plain import RefusedError
from gald.run.shape import read_config_file
from gald.run.trunk import trunk_name

GetSource = Callable[[], Source]


def build_page(run: Stored, get_source: GetSource, command: str) -> Page:
    """Build all sections.

    Args:
        run: the results.
        get_source: returns images and network; raises an OSError or ValueError if there are none.
        command: the command line that writes the report.

    Raises:
        RefusedError: a file would call other code.
    """
    try:
        source, fault = (get_source(), "") if run.evaluated is not None else (None, run.missing)
    except RefusedError:
        raise
    except (OSError, ValueError) as error:
        source, fault = None, to_sentence(error)
    sections = [
        scores(run),
        curves(run),
        classes(run, source),
        images(run, source, fault),
        calibration(run),
        boundaries(run),
        costs(run),
        provenance(run, command),
    ]
    return Page(
        f"Report of {run_names([run.folder])[0]}",
        _about(run),
        tables.conclusion(run),
        _tiles(run),
        sections,
    )


def _about(run: Stored) -> str:
    """Describe data and network in one line."""
    data = run.receipt.get("data")
    target = data.get("_target_") if isinstance(data, dict) else None
    parts = [f"data {str(target).split('.')[-2]}"] if target and "." in str(target) else []
    parts += _network(run)
    parts.append(f"{len(run.class_names)} classes")
    parts.append(f"evaluated on {' and '.join(run.splits)}, details of {run.split}")
    for key, text in (("epochs", "{} epochs"), ("steps", "{} steps"), ("seed", "seed {}")):
        if run.results.get(key) is not None:
            parts.append(text.format(run.results[key]))
    return " · ".join(parts)


def _network(run: Stored) -> list[str]:
    """Name backbone, GA and LD, if the folder has the configuration of the run."""
    try:
        model = read_config_file(run.folder / "config.yaml").get("model")
    except (OSError, ValueError):
        return []
    model = model if isinstance(model, dict) else {}
    parts = {key: model.get(key) for key in ("ga", "ld")}
    named = {key: part for key, part in parts.items() if isinstance(part, dict)}
    names = [trunk_name(model)]
    for key in ("ga", "ld"):
        target = str(named.get(key, {}).get("_target_") or "")
        names.append(f"{key.upper()} {target.rpartition('.')[2]}" if target else "")
    return [name for name in names if name]


def _tiles(run: Stored) -> list[tuple[str, str]]:
    tiles = [
        (f"mIoU, {split}{tables.UP}", f"{tables.percent(run.score('miou', split))}%")
        for split in run.splits
    ]
    tiles.append(
        (f"pixel accuracy, {run.split}{tables.UP}", f"{tables.percent(run.score('accuracy'))}%")
    )
    for key, label, metric in tables.headlines(run):
        if metric.name in ("boundary_iou", "ece") and (value := run.score(key)) is not None:
            arrow = tables.UP if metric.higher_is_better else tables.DOWN
            tiles.append((f"{label}, {run.split}{arrow}", f"{100 * value:.1f}%"))
    if isinstance(params := run.results.get("params"), int):
        tiles.append(("parameters", f"{params / 1e6:.2f} M"))
    if isinstance(gmacs := run.results.get("cost/total/gmacs"), int | float):
        tiles.append(("multiply-adds", f"{gmacs:.3g} G"))
    if isinstance(seconds := run.results.get("seconds"), int | float):
        tiles.append(("time of the run", _duration(seconds)))
    return tiles


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
