"""A sweep's analysis as a verdict, tables and pictures."""

from collections.abc import Sequence

import numpy as np

from gald.comparison.figures import difference_chart
from gald.comparison.report import Section
from gald.sweep.table.analysis import LEVEL, Analysis, ContrastResult
from gald.sweep.table.arms import Arm, SweepRuns
from gald.sweep.table.columns import Column, columns, mean_and_deviation, values
from gald.sweep.table.effects import HOW_TO_READ
from gald.sweep.table.figures import Point, class_chart, pareto_chart

JUDGED = ("difference", "95% interval", "p (Holm)", "verdict")


def conclusion(sweep: SweepRuns, found: Analysis) -> str:
    """Say in one sentence or two which arms differ from the baseline."""
    base, answers = sweep.arms[found.baseline].label, found.differences
    count = len(sweep.missing_cells)
    missing = "1 cell is missing" if count == 1 else f"{count} cells are missing"
    missing_cells = f" {missing}, see below." if count else ""
    if not answers:
        return f"One arm only, {base}: nothing to compare it with.{missing_cells}"
    if found.deviation is None:
        return (
            f"No arm was trained with two seeds, so nothing can be told from chance: train each of "
            f"the {len(sweep.arms)} arms with 3 seeds or more.{missing_cells}"
        )
    clear = [answer for answer in answers if answer.clear]
    top = max(clear or answers, key=lambda answer: abs(np.nan_to_num(answer.found.difference)))
    name, low, high = top.question.name, _signed(top.found.low), _signed(top.found.high)
    size = f"{_signed(top.found.difference)} points (95% interval {low} to {high})"
    if len(answers) == 1:
        sure = "differs by more than noise" if clear else "is inside the noise"
        return f"The mIoU of {name} {sure} against {base}: {size}.{missing_cells}"
    many = f"{len(answers)} arms"
    if not clear:
        return (
            f"Inside the noise: none of {many} differs surely from {base}; the largest mIoU "
            f"difference is that of {name}, {size}.{missing_cells}"
        )
    return (
        f"{len(clear)} of {many} differ{'s' if len(clear) == 1 else ''} from {base} by more than "
        f"noise; the largest mIoU difference is that of {name}, {size}.{missing_cells}"
    )


def sections(sweep: SweepRuns, found: Analysis, warnings: Sequence[str]) -> list[Section]:
    """Arrange everything, the audit's warnings first if there are any."""
    shown = columns(sweep.arms, sweep.split)
    parts = []
    if warnings:
        words = "More than the declared factors differs between cells; the table may mislead."
        parts.append(Section("Audit", words, ("warning",), [[text] for text in warnings]))
    parts.append(_arms(sweep, found))
    parts.append(_columns(sweep, shown))
    if found.other_scores:
        parts.append(_other_scores(sweep, found))
    if len(sweep.factors) > 1 and found.main_effects:
        parts.append(_effects("Main effects", found.main_effects, HOW_TO_READ, found))
        words = "Of each pair of levels, in points of mIoU. " + _holm(found.interactions, found)
        parts.append(_effects("Interactions", found.interactions, words, found))
    if found.classes:
        parts.append(_classes(sweep, found))
    if sweep.missing_cells:
        words = "These cells have no run that could be compared; nothing above counts them."
        parts.append(
            Section("Missing cells", words, ("arm", "seed", "state", "reason"), sweep.missing_cells)
        )
    if sweep.notes:
        rows = [[note] for note in sweep.notes]
        parts.append(Section("Run otherwise than declared", "", ("cell",), rows))
    return [*parts, _reading(found)]


def _arms(sweep: SweepRuns, found: Analysis) -> Section:
    base = sweep.arms[found.baseline]
    answers = {answer.question.name: answer for answer in found.differences}
    miou = Column("mIoU", f"{sweep.split}/miou", 100, True, "%")
    rows = []
    for arm in sweep.arms:
        mean, deviation, _ = mean_and_deviation(values(arm, miou))
        evaluated = _judged(answers[arm.label]) if arm is not base else ["", "", "", "baseline"]
        rows.append([arm.label, str(len(arm.runs)), _spread(mean, deviation), *evaluated])
    known = {arm.label for arm in sweep.arms}
    for name in dict.fromkeys(lack.arm for lack in sweep.missing_cells if lack.arm not in known):
        rows.append([name, "0", "", "", "", "", "no result"])
    words = f"Differences are from {base.label}. " + _holm(found.differences, found)
    chart = None
    if found.differences:
        bars = {answer.question.name: answer.found for answer in found.differences}
        clear = [answer.clear for answer in found.differences]
        along = f"mIoU against {base.label} (points)"
        chart = ("arms.png", difference_chart(bars, clear, "Arms", along))
    return Section("Arms", words, ("arm", "seeds", "mIoU %", *JUDGED), rows, chart)


def _columns(sweep: SweepRuns, shown: Sequence[Column]) -> Section:
    rows = [[arm.label, *(shown_value(arm, column) for column in shown)] for arm in sweep.arms]
    header = ["arm", *(f"{c.title} {c.unit}".rstrip() for c in shown)]
    words = (
        "Scores: mean ± standard deviation over seeds. Costs: one image in evaluation; latency "
        "and memory as --measure finds them on this machine."
    )
    names = {"cost/total/gmacs": "GMACs", "cost/total/ms": "latency (ms)"}
    panels = {}
    for column in shown:
        if column.key in names:
            points = [_point(arm, shown[0], column) for arm in sweep.arms]
            panels[names[column.key]] = [p for p in points if not np.isnan(p.cost + p.score)]
    if panels:
        words += " Filled in the picture: no other arm is both cheaper and better."
    picture = ("pareto.png", pareto_chart(panels)) if panels else None
    return Section("Where, and at what cost", words, header, rows, picture)


def _other_scores(sweep: SweepRuns, found: Analysis) -> Section:
    shown = list(found.other_scores)
    rows = [
        [
            answers[0].question.name,
            *(_brief(answer, column) for answer, column in zip(answers, shown, strict=True)),
        ]
        for answers in zip(*found.other_scores.values(), strict=True)
    ]
    more = ", then main effects," if len(sweep.factors) > 1 else ""
    words = (
        f"Differences from {sweep.arms[found.baseline].label}{more} in points with 95% intervals. "
        "A star: more than noise, corrected within each score for the number of arms, and for that "
        "of main effects."
    )
    header = ("effect", *(column.title for column in shown))
    return Section("Boundaries and small things", words, header, rows)


def shown_value(arm: Arm, column: Column) -> str:
    """A number of an arm as the tables show it."""
    mean, deviation, _ = mean_and_deviation(values(arm, column))
    if column.score:
        return _spread(mean, deviation)
    return "" if np.isnan(mean) else f"{mean:.4g}"


def _point(arm: Arm, score: Column, cost: Column) -> Point:
    mean, deviation, _ = mean_and_deviation(values(arm, score))
    return Point(arm.label, mean_and_deviation(values(arm, cost))[0], mean, deviation)


def _effects(title: str, answers: Sequence[ContrastResult], words: str, found: Analysis) -> Section:
    if not answers:
        return Section(title, "No four arms with runs form a square of two factors.")
    rows = [[a.question.name, str(a.question.settings), *_judged(a)] for a in answers]
    if title == "Main effects":
        words = f"{words} {_holm(answers, found)}"
    return Section(title, words, ("effect on mIoU", "settings", *JUDGED), rows)


def _classes(sweep: SweepRuns, found: Analysis) -> Section:
    names = next(iter(sweep.arms[0].runs.values())).class_names
    arms = [answer.question.name for answer in found.differences]
    rows = [
        [name, *(_starred(of.difference[k], of.clear[k]) for of in found.classes)]
        for k, name in enumerate(names)
    ]
    asked = sum(int(np.count_nonzero(~np.isnan(of.p))) for of in found.classes)
    base = sweep.arms[found.baseline].label
    words = (
        f"IoU difference from {base} in points; a star where the class's own 95% interval leaves "
        f"out 0, which about {LEVEL * asked:.1f} of these {asked} would do by chance."
    )
    chart = ("classes.png", class_chart(arms, names, found.classes, base))
    return Section("Classes", words, ("class", *arms), rows, chart)


def _reading(found: Analysis) -> Section:
    spread = "" if found.deviation is None else f" {100 * found.deviation:.2f} points here,"
    return Section(
        "How to read this",
        f"{found.images} images were drawn {found.samples} times with replacement, the same for "
        "all runs (paired bootstrap), and the noise of training seeds was added: Student's t with "
        f"the standard deviation between seeds that all arms have in common,{spread} with runs of "
        "one seed compared with each other. It is assumed to be alike in all arms. An interval "
        "that holds 0 is noise. Holm's correction keeps the chance of any false alarm among the "
        "arms below 5%.",
    )


def _holm(answers: Sequence[ContrastResult], found: Analysis) -> str:
    asked = sum(not np.isnan(answer.p) for answer in answers)
    questions = "1 question" if asked == 1 else f"{asked} questions"
    words = f"p values are corrected for asking {questions} (Holm)."
    if asked * 2 / (found.samples + 1) >= LEVEL:
        words += f" With {found.samples} samples none can be clear: take more with --samples."
    return words


def _judged(answer: ContrastResult) -> list[str]:
    if np.isnan(answer.found.p):
        return ["", "", "", answer.verdict]
    low, high = _signed(answer.found.low), _signed(answer.found.high)
    p = f"{answer.p:.4f}" if answer.p < 0.01 else f"{answer.p:.3f}"
    return [_signed(answer.found.difference), f"{low} to {high}", p, answer.verdict]


def _brief(answer: ContrastResult, column: Column) -> str:
    if np.isnan(answer.found.p):
        return "absent"
    ends = (answer.found.difference, answer.found.low, answer.found.high)
    value, low, high = (_signed(end, column.factor) for end in ends)
    return f"{value} ({low} to {high}){'*' if answer.clear else ''}"


def _starred(value: float, clear: bool) -> str:
    return "absent" if np.isnan(value) else f"{100 * value:+.2f}{'*' if clear else ''}"


def _signed(value: np.ndarray, factor: float = 100) -> str:
    return f"{factor * float(value):+.2f}"


def _spread(mean: float, deviation: float) -> str:
    if np.isnan(mean):
        return "absent"
    return f"{mean:.2f}" if np.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"
