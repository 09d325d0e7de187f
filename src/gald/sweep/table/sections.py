"""Report sections of a sweep: conclusion, tables and figures."""

from collections.abc import Sequence

import numpy as np

from gald.comparison.figures import difference_chart
from gald.comparison.report import Section
from gald.sweep.table.analysis import LEVEL, Analysis, ContrastResult
from gald.sweep.table.arms import Arm, SweepRuns
from gald.sweep.table.columns import Column, mean_and_deviation, values
from gald.sweep.table.effects import HOW_TO_READ
from gald.sweep.table.figures import Point, class_chart, pareto_chart

RESULT_HEADER = ("difference", "95% interval", "p (Holm)", "conclusion")


def conclusion(sweep: SweepRuns, analysis: Analysis) -> str:
    """Summarise in one or two sentences which arms differ from the baseline."""
    base, results = sweep.arms[analysis.baseline].label, analysis.differences
    count = len(sweep.missing_cells)
    missing = "1 cell is missing" if count == 1 else f"{count} cells are missing"
    missing_note = f" {missing}, see below." if count else ""
    if not results:
        return f"One arm only, {base}: nothing to compare it with.{missing_note}"
    if analysis.deviation is None:
        return (
            f"No arm was trained with two seeds, so no difference can be distinguished from noise: "
            f"train each of the {len(sweep.arms)} arms with 3 seeds or more.{missing_note}"
        )
    clear = [result for result in results if result.clear]
    top = max(clear or results, key=lambda result: abs(np.nan_to_num(result.estimate.difference)))
    name, low, high = top.contrast.name, _signed(top.estimate.low), _signed(top.estimate.high)
    size = f"{_signed(top.estimate.difference)} points (95% interval {low} to {high})"
    if len(results) == 1:
        relation = "larger than the noise" if clear else "inside the noise"
        return f"The mIoU difference of {name} from {base} is {relation}: {size}.{missing_note}"
    compared = f"{len(results)} arms"
    if not clear:
        return (
            f"Inside the noise: none of {compared} differs significantly from {base}; the largest "
            f"mIoU difference is that of {name}, {size}.{missing_note}"
        )
    return (
        f"{len(clear)} of {compared} differ{'s' if len(clear) == 1 else ''} from {base} by more "
        f"than noise; the largest mIoU difference is that of {name}, {size}.{missing_note}"
    )


def sections(
    sweep: SweepRuns, analysis: Analysis, warnings: Sequence[str], drawing: bool = True
) -> list[Section]:
    """Build all sections of the report.

    Args:
        sweep: the runs of the sweep.
        analysis: their comparison.
        warnings: findings of the audit, which come first.
        drawing: whether to draw the figures too.
    """
    shown = analysis.columns
    parts = []
    if warnings:
        words = "Cells differ in more than the declared factors; the table may be misleading."
        parts.append(Section("Audit", words, ("warning",), [[text] for text in warnings]))
    parts.append(_arms(sweep, analysis, drawing))
    parts.append(_columns(sweep, shown, drawing))
    if analysis.other_scores:
        parts.append(_other_scores(sweep, analysis))
    if len(sweep.factors) > 1 and analysis.main_effects:
        parts.append(_effects("Main effects", analysis.main_effects, HOW_TO_READ, analysis))
        correction = _holm(analysis.interactions, analysis)
        words = f"For each pair of levels, in points of mIoU. {correction}"
        parts.append(_effects("Interactions", analysis.interactions, words, analysis))
    if analysis.classes:
        parts.append(_classes(sweep, analysis, drawing))
    if sweep.missing_cells:
        words = "These cells have no run that can be compared; they are not included above."
        parts.append(
            Section("Missing cells", words, ("arm", "seed", "state", "reason"), sweep.missing_cells)
        )
    if sweep.notes:
        rows = [[note] for note in sweep.notes]
        parts.append(Section("Deviations from the declared settings", "", ("cell",), rows))
    return [*parts, _how_to_read(analysis)]


def _arms(sweep: SweepRuns, analysis: Analysis, drawing: bool) -> Section:
    base = sweep.arms[analysis.baseline]
    results = {result.contrast.name: result for result in analysis.differences}
    miou = Column("mIoU", f"{sweep.split}/miou", 100, True, "%")
    rows = []
    for arm in sweep.arms:
        mean, deviation, _ = mean_and_deviation(values(arm, miou))
        cells = _result_cells(results[arm.label]) if arm is not base else ["", "", "", "baseline"]
        rows.append([arm.label, str(len(arm.runs)), _spread(mean, deviation), *cells])
    known = {arm.label for arm in sweep.arms}
    for name in dict.fromkeys(cell.arm for cell in sweep.missing_cells if cell.arm not in known):
        rows.append([name, "0", "", "", "", "", "no result"])
    words = f"Differences are from {base.label}. " + _holm(analysis.differences, analysis)
    chart = None
    if drawing and analysis.differences:
        bars = {result.contrast.name: result.estimate for result in analysis.differences}
        clear = [result.clear for result in analysis.differences]
        along = f"mIoU against {base.label} (points)"
        chart = ("arms.png", difference_chart(bars, clear, "Arms", along))
    return Section("Arms", words, ("arm", "seeds", "mIoU %", *RESULT_HEADER), rows, chart)


def _columns(sweep: SweepRuns, shown: Sequence[Column], drawing: bool) -> Section:
    rows = [[arm.label, *(shown_value(arm, column) for column in shown)] for arm in sweep.arms]
    header = ["arm", *(f"{c.title} {c.unit}".rstrip() for c in shown)]
    words = (
        "Scores: mean ± standard deviation over seeds. Costs: one image in evaluation; latency and "
        "memory are measured by --measure on this machine."
    )
    names = {"cost/total/gmacs": "GMACs", "cost/total/ms": "latency (ms)"}
    panels = {}
    for column in shown:
        if column.key in names:
            points = [_point(arm, shown[0], column) for arm in sweep.arms]
            panels[names[column.key]] = [p for p in points if not np.isnan(p.cost + p.score)]
    if panels:
        words += " Filled markers in the figure: no other arm is both cheaper and better."
    chart = ("pareto.png", pareto_chart(panels)) if panels and drawing else None
    return Section("Scores and costs", words, header, rows, chart)


def _other_scores(sweep: SweepRuns, analysis: Analysis) -> Section:
    shown = list(analysis.other_scores)
    rows = [
        [
            results[0].contrast.name,
            *(_brief(result, column) for result, column in zip(results, shown, strict=True)),
        ]
        for results in zip(*analysis.other_scores.values(), strict=True)
    ]
    base = sweep.arms[analysis.baseline].label
    more = ", then main effects," if len(sweep.factors) > 1 else ""
    words = (
        f"Differences from {base}{more} in points with 95% intervals. A star marks more than "
        "noise, corrected within each score for the number of arms, and separately for the number "
        "of main effects."
    )
    header = ("effect", *(column.title for column in shown))
    return Section("Boundaries and small things", words, header, rows)


def shown_value(arm: Arm, column: Column) -> str:
    """Format a score or cost of an arm as in the tables."""
    mean, deviation, _ = mean_and_deviation(values(arm, column))
    if column.score:
        return _spread(mean, deviation)
    return "" if np.isnan(mean) else f"{mean:.4g}"


def _point(arm: Arm, score: Column, cost: Column) -> Point:
    mean, deviation, _ = mean_and_deviation(values(arm, score))
    return Point(arm.label, mean_and_deviation(values(arm, cost))[0], mean, deviation)


def _effects(
    title: str, results: Sequence[ContrastResult], words: str, analysis: Analysis
) -> Section:
    if not results:
        return Section(title, "No two factors have four arms with runs that form a 2 x 2 square.")
    rows = [[r.contrast.name, str(r.contrast.settings), *_result_cells(r)] for r in results]
    if title == "Main effects":
        words = f"{words} {_holm(results, analysis)}"
    return Section(title, words, ("effect on mIoU", "settings", *RESULT_HEADER), rows)


def _classes(sweep: SweepRuns, analysis: Analysis, drawing: bool) -> Section:
    names = next(iter(sweep.arms[0].runs.values())).class_names
    arms = [result.contrast.name for result in analysis.differences]
    rows = [
        [name, *(_starred(arm.difference[k], arm.clear[k]) for arm in analysis.classes)]
        for k, name in enumerate(names)
    ]
    tested = sum(int(np.count_nonzero(~np.isnan(arm.p))) for arm in analysis.classes)
    base = sweep.arms[analysis.baseline].label
    words = (
        f"IoU difference from {base} in points. A star marks a 95% interval of the class that "
        f"excludes 0; about {LEVEL * tested:.1f} of these {tested} would do so by chance."
    )
    chart = None
    if drawing:
        chart = ("classes.png", class_chart(arms, names, analysis.classes, base))
    return Section("Classes", words, ("class", *arms), rows, chart)


def _how_to_read(analysis: Analysis) -> Section:
    spread = "" if analysis.deviation is None else f" {100 * analysis.deviation:.2f} points here,"
    return Section(
        "How to read this",
        f"{analysis.images} images were drawn {analysis.samples} times with replacement, with the "
        "same draws for all runs (paired bootstrap). The noise of training seeds was added: "
        f"Student's t with the standard deviation between seeds, pooled over all arms,{spread} "
        "with runs of the same seed compared with each other. The standard deviation is assumed to "
        "be equal in all arms. An interval that contains 0 is noise. Holm's correction keeps the "
        "chance of any false alarm among the arms below 5%.",
    )


def _holm(results: Sequence[ContrastResult], analysis: Analysis) -> str:
    count = sum(not np.isnan(result.p) for result in results)
    comparisons = "1 comparison" if count == 1 else f"{count} comparisons"
    words = f"p values are corrected for {comparisons} (Holm)."
    if count * 2 / (analysis.samples + 1) >= LEVEL:
        words += (
            f" With {analysis.samples} samples no difference can be significant: take more with "
            "--samples."
        )
    return words


def _result_cells(result: ContrastResult) -> list[str]:
    if np.isnan(result.estimate.p):
        return ["", "", "", result.conclusion]
    low, high = _signed(result.estimate.low), _signed(result.estimate.high)
    p = f"{result.p:.4f}" if result.p < 0.01 else f"{result.p:.3f}"
    return [_signed(result.estimate.difference), f"{low} to {high}", p, result.conclusion]


def _brief(result: ContrastResult, column: Column) -> str:
    if np.isnan(result.estimate.p):
        return "absent"
    ends = (result.estimate.difference, result.estimate.low, result.estimate.high)
    value, low, high = (_signed(end, column.factor) for end in ends)
    return f"{value} ({low} to {high}){'*' if result.clear else ''}"


def _starred(value: float, clear: bool) -> str:
    return "absent" if np.isnan(value) else f"{100 * value:+.2f}{'*' if clear else ''}"


def _signed(value: np.ndarray, factor: float = 100) -> str:
    return f"{factor * float(value):+.2f}"


def _spread(mean: float, deviation: float) -> str:
    if np.isnan(mean):
        return "absent"
    return f"{mean:.2f}" if np.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"
