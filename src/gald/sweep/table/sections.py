"""Report sections of a sweep: conclusion, tables and figures."""

from collections.abc import Sequence

import numpy as np

from gald.comparison.bootstrap import holm
from gald.comparison.figures import difference_chart
from gald.comparison.report import Section
from gald.comparison.units import ENOUGH
from gald.sweep.table.along import along
from gald.sweep.table.analysis import LEVEL, Analysis, ContrastResult
from gald.sweep.table.arms import Arm, SweepRuns
from gald.sweep.table.columns import Column, mean_and_deviation, values
from gald.sweep.table.effects import GIVEN, HOW_TO_READ
from gald.sweep.table.figures import Point, class_chart, pareto_chart
from gald.sweep.table.robust import interquartile_mean, probability_of_improvement

EXPLORATORY = "Exploratory: corrected for all tests of the report, see the end."
RESULT_HEADER = ("difference", "95% interval", "p (Holm)", "conclusion")


def conclusion(sweep: SweepRuns, analysis: Analysis, margin: float | None = None) -> str:
    """Answer the primary contrast, and summarise which arms differ from the baseline.

    Args:
        sweep: the runs of the sweep.
        analysis: their comparison.
        margin: difference in points that counts as none, if none was declared; or None.
    """
    arms = _conclusion_of_arms(sweep, analysis)
    if analysis.declared is None:
        undeclared = " No primary contrast was declared, so every finding is exploratory."
        return arms if analysis.deviation is None or not analysis.differences else arms + undeclared
    return f"{_answer(sweep, analysis, margin)} What follows is exploratory. {arms}"


def _answer(sweep: SweepRuns, analysis: Analysis, margin: float | None) -> str:
    primary, answer = analysis.primary, analysis.answer
    question = f"Primary contrast, {analysis.declared}:"
    if primary is None:
        return f"{question} no answer, because the sweep has no two arms of it yet."
    if answer is None:
        return (
            f"{question} no answer, because no setting has all its runs, or the runs have no "
            f"counts of {primary.score} for every image."
        )
    size = _ends_of(answer, analysis.factor_of(primary.score))
    words = {"noise": "inside the noise"}.get(answer.conclusion, answer.conclusion)
    sentence = f"{question} {words}, {size}."
    declared = primary.contrast([Arm(values, "") for values in sweep.declared])
    if declared is not None and declared.settings > answer.contrast.settings:
        sentence += (
            f" It has {answer.contrast.settings} of {declared.settings} settings; the others lack "
            "runs, so this is not yet the declared contrast."
        )
    within = primary.margin or margin
    if within is not None and not np.isnan(answer.p) and analysis.images >= ENOUGH:
        p = answer.estimate.equivalence(within / analysis.factor_of(primary.score))
        relation = "Equivalent" if p < LEVEL else "Not shown to be equivalent"
        later = "" if primary.margin else ", a margin of --margin that was not declared"
        sentence += (
            f" {relation} within {within:g} points (two one-sided tests, p {_p(float(p))}{later})."
        )
    return sentence


def _ends_of(result: ContrastResult, factor: float) -> str:
    estimate = result.estimate
    if np.isnan(estimate.difference):
        return "because no image has that score"
    points = f"{_signed(estimate.difference, factor)} points"
    if np.isnan(estimate.p):
        return f"{points}, without an interval"
    chance = f"p {_p(result.p)}" if result.degrees_of_freedom else "of the images only"
    low, high = _signed(estimate.low, factor), _signed(estimate.high, factor)
    return f"{points} (95% interval {low} to {high}, {chance})"


def _conclusion_of_arms(sweep: SweepRuns, analysis: Analysis) -> str:
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
    if analysis.images < ENOUGH:
        return (
            f"No verdict: {analysis.images} images are too few, evaluate {ENOUGH} or more; the "
            f"largest mIoU difference from {base} is that of {name}, {size}.{missing_note}"
        )
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
    sweep: SweepRuns,
    analysis: Analysis,
    warnings: Sequence[str],
    drawing: bool = True,
    margin: float | None = None,
) -> list[Section]:
    """Build all sections of the report.

    Args:
        sweep: the runs of the sweep.
        analysis: their comparison.
        warnings: findings of the audit, which come first.
        drawing: whether to draw the figures too.
        margin: mIoU difference in points that counts as none, or None.
    """
    shown = analysis.columns
    parts = []
    if warnings:
        words = "Cells differ in more than the declared factors; the table may be misleading."
        parts.append(Section("Audit", words, ("warning",), [[text] for text in warnings]))
    parts.append(_arms(sweep, analysis, drawing))
    parts.append(_columns(sweep, shown, drawing))
    parts.append(_runs(sweep, analysis))
    if margin is not None:
        parts.append(_equivalence(analysis, margin))
    if analysis.other_scores:
        parts.append(_other_scores(sweep, analysis))
    parts += along(sweep, sweep.arms[analysis.baseline], drawing)
    if analysis.main_effects:
        parts.append(_effects("Main effects", analysis.main_effects, HOW_TO_READ))
        if analysis.given:
            parts.append(_effects("Given a level", analysis.given, GIVEN))
        words = "For each pair of levels, in points of mIoU."
        parts.append(_effects("Interactions", analysis.interactions, words))
    if analysis.classes:
        parts.append(_classes(sweep, analysis, drawing))
    if sweep.missing_cells:
        words = "These cells have no run that can be compared; they are not included above."
        header = ("arm", "seeds", "state", "reason")
        parts.append(Section("Missing cells", words, header, _missing(sweep)))
    if sweep.notes:
        rows = [[note] for note in sweep.notes]
        parts.append(Section("Deviations from the declared settings", "", ("cell",), rows))
    return [*parts, _how_to_read(sweep, analysis)]


def _missing(sweep: SweepRuns) -> list[list[str]]:
    """One row for all seeds of an arm that are missing for the same reason."""
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for cell in sweep.missing_cells:
        seeds.setdefault((cell.arm, cell.state, cell.reason), []).append(str(cell.seed))
    return [[arm, ", ".join(which), *why] for (arm, *why), which in seeds.items()]


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
    tried = (cell.arm for cell in sweep.missing_cells if cell.state != "pending")
    for name in dict.fromkeys(tried):
        if name not in known:
            rows.append([name, "0", "", "", "", "", "no result"])
    correction = _holm(analysis.differences) if analysis.declared is None else EXPLORATORY
    words = f"Differences are from {base.label}. {correction}"
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
    more = ", then main effects and given levels," if analysis.main_effects else ""
    words = (
        f"Differences from {base}{more} in points with 95% intervals. A star marks more than "
        f"noise. {EXPLORATORY}"
    )
    header = ("effect", *(column.title for column in shown))
    return Section("Boundaries and small things", words, header, rows)


def _runs(sweep: SweepRuns, analysis: Analysis) -> Section:
    base = sweep.arms[analysis.baseline]
    baseline, rows = _miou(sweep, base), []
    for arm in sweep.arms:
        scores = _miou(sweep, arm)
        middle, better = interquartile_mean(scores), probability_of_improvement(scores, baseline)
        cells = [f"{100 * better:.0f}%" if better == better else "", f"{middle:.2f}"]
        rows.append([arm.label, "" if arm is base else cells[0], cells[1]])
    words = (
        f"P(better): the share of pairs of runs in which the arm has a higher mIoU than "
        f"{base.label}, a tie counts half. Interquartile mean: the mean of the middle half of the "
        "runs. Both only describe these runs."
    )
    return Section("Runs", words, ("arm", "P(better)", "interquartile mean"), rows)


def _miou(sweep: SweepRuns, arm: Arm) -> np.ndarray:
    return values(arm, Column("mIoU", f"{sweep.split}/miou", 100, True, "%"))


def _equivalence(analysis: Analysis, margin: float) -> Section:
    results = [*analysis.differences, *analysis.main_effects, *analysis.given]
    known = [one for one in results if one.degrees_of_freedom]
    p = [float(one.estimate.equivalence(margin / 100)) for one in known]
    adjusted = holm(np.array(p))
    rows = [
        [one.contrast.name, _signed(one.estimate.difference), _p(raw), _p(corrected), verdict]
        for one, raw, corrected in zip(known, p, adjusted, strict=True)
        for verdict in [_equivalent(one, corrected)]
    ]
    words = (
        f"Is the difference in mIoU within {margin:g} points of 0? Two one-sided tests: p below 5% "
        "means that the 90% interval lies within the margin. Noise alone does not mean this. "
        f"p (Holm) is corrected for the {len(p)} rows. State the margin before you look."
    )
    header = ("effect on mIoU", "difference", "p", "p (Holm)", "conclusion")
    return Section("Equivalence", words, header, rows)


def _equivalent(result: ContrastResult, p: float) -> str:
    if result.images < ENOUGH:
        return "too few images"
    return "equivalent" if p < LEVEL else "not shown"


def shown_value(arm: Arm, column: Column) -> str:
    """Format a score or cost of an arm as in the tables."""
    mean, deviation, _ = mean_and_deviation(values(arm, column))
    if column.score:
        return _spread(mean, deviation)
    return "" if np.isnan(mean) else f"{mean:.4g}"


def _point(arm: Arm, score: Column, cost: Column) -> Point:
    mean, deviation, _ = mean_and_deviation(values(arm, score))
    return Point(arm.label, mean_and_deviation(values(arm, cost))[0], mean, deviation)


def _effects(title: str, results: Sequence[ContrastResult], words: str) -> Section:
    if not results:
        return Section(title, "No two factors have four arms with runs that form a 2 x 2 square.")
    rows = [[r.contrast.name, str(r.contrast.settings), *_result_cells(r)] for r in results]
    header = ("effect on mIoU", "settings", *RESULT_HEADER)
    return Section(title, f"{words} {EXPLORATORY}", header, rows)


def _classes(sweep: SweepRuns, analysis: Analysis, drawing: bool) -> Section:
    names = next(iter(sweep.arms[0].runs.values())).class_names
    arms = [result.contrast.name for result in analysis.differences]
    stars = [p < LEVEL for p in analysis.class_p]  # nan is no star
    rows = [
        [
            name,
            *(
                _starred(arm.difference[k], star[k])
                for arm, star in zip(analysis.classes, stars, strict=True)
            ),
        ]
        for k, name in enumerate(names)
    ]
    base = sweep.arms[analysis.baseline].label
    words = f"IoU difference from {base} in points. A star marks more than noise. {EXPLORATORY}"
    chart = None
    if drawing:
        chart = ("classes.png", class_chart(arms, names, analysis.classes, stars, base))
    return Section("Classes", words, ("class", *arms), rows, chart)


def _how_to_read(sweep: SweepRuns, analysis: Analysis) -> Section:
    return Section(
        "How to read this",
        f"{analysis.units.words} This was done {analysis.samples} times with replacement, with the "
        "same draws for all runs (paired bootstrap). An interval is Student's, from the variance "
        "of the draws plus the variance between seeds. A class without a true pixel among the "
        f"drawn images counts for no run.{_unseen(sweep)} {_about_seeds(analysis)} An interval "
        f"that contains 0 is noise. {families(analysis)}",
    )


def _about_seeds(analysis: Analysis) -> str:
    if analysis.deviation is None:
        return "No arm has two seeds, so the intervals leave the chance of seeds out."
    paired, unpaired = (100 * part for part in analysis.deviation[:2])
    return (
        f"Between seeds, mIoU deviates by {unpaired:.2f} points in one arm, and by {paired:.2f} "
        "points once runs of the same seed are compared with each other, as they are here "
        f"({analysis.deviation.degrees_of_freedom} degrees of freedom, pooled over all arms; "
        f"gald sweep plan --sd {paired:.2f}). The deviation is assumed to be equal in all arms."
    )


def families(analysis: Analysis) -> str:
    """State the chance of a false star in the report."""
    if analysis.declared is not None:
        return (
            "The primary contrast is tested at 5%. All other tables are exploratory: their "
            f"{analysis.tests} tests are one family for Holm's correction, so the chance of any "
            "false star or verdict among them is below 5%, too."
        )
    return (
        "No primary contrast was declared (hydra.sweeper.primary). p values are corrected by "
        f"Holm's method in two families: {_comparisons(analysis.differences)} of the arms in mIoU, "
        f"and the {analysis.tests} exploratory tests of all other tables. The chance of any false "
        "star or verdict is below 5% in each family, and below 10% in the report."
    )


def _unseen(sweep: SweepRuns) -> str:
    """Name the classes that only predictions have, which the mIoU of results.json counts as 0."""
    runs = [run for arm in sweep.arms for run in arm.runs.values()]
    false = np.any([(run.total[1] == 0) & (run.total[2] > 0) for run in runs], axis=0)
    names = [name for name, is_false in zip(runs[0].class_names, false, strict=True) if is_false]
    if not names:
        return ""
    return (
        f" No image of {sweep.split} has {', '.join(names)}, but some run predicts it: the mIoU "
        "of that run counts it as 0, and the differences leave it out."
    )


def _holm(results: Sequence[ContrastResult]) -> str:
    return f"p values are corrected for {_comparisons(results)} (Holm)."


def _comparisons(results: Sequence[ContrastResult]) -> str:
    count = sum(not np.isnan(result.p) for result in results)
    return "1 comparison" if count == 1 else f"{count} comparisons"


def _result_cells(result: ContrastResult) -> list[str]:
    if np.isnan(result.estimate.difference):
        return ["", "", "", result.conclusion]
    if np.isnan(result.estimate.p):
        return [_signed(result.estimate.difference), "", "", result.conclusion]
    low, high = _signed(result.estimate.low), _signed(result.estimate.high)
    difference = _signed(result.estimate.difference)
    return [difference, f"{low} to {high}", _p(result.p), result.conclusion]


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return "<0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def _brief(result: ContrastResult, column: Column) -> str:
    if np.isnan(result.estimate.difference):
        return "absent"
    if np.isnan(result.estimate.p):
        return f"{_signed(result.estimate.difference, column.factor)} (too few images)"
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
