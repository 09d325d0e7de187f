"""The numbers of a sweep for spreadsheets: an arm a line, and a run a line."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from gald.sweep.table.analysis import Analysis, ContrastResult
from gald.sweep.table.arms import SweepRuns
from gald.sweep.table.columns import columns, mean_and_deviation, values

ENDS = ("difference", "low", "high")
# What a run was, and what its receipt says that it can be checked by.
OF_RUN = ("seconds", "epochs", "device", "precision", "commit")
OF_RECEIPT = ("checkpoint_sha256", "predictions_sha256", "images_sha256", "ground_truth_sha256")


def arms_csv(sweep: SweepRuns, found: Analysis) -> str:
    """All numbers of all arms, a line each, those without a run too; scores in percent."""
    shown = columns(sweep.arms, sweep.split)
    answers = {answer.question.name: answer for answer in found.differences}
    others = {
        column: {answer.question.name: answer for answer in answers}
        for column, answers in found.other_scores.items()
    }
    header = ["arm", *sweep.factors, "seeds"]
    for column in shown:
        header += [column.title, f"{column.title} sd"] if column.score else [column.title]
    header += [*ENDS, "p", "p_holm", "freedom", "verdict"]
    header += [f"{column.title} {end}" for column in others for end in (*ENDS, "p_holm")] + [
        "missing"
    ]
    rows = []
    for arm in sweep.arms:
        row = {"arm": arm.label, **arm.values, "seeds": " ".join(map(str, arm.runs))}
        for column in shown:
            mean, deviation, _ = mean_and_deviation(values(arm, column))
            row[column.title] = _number(mean)
            if column.score:
                row[f"{column.title} sd"] = _number(deviation)
        row |= {"verdict": "baseline", "missing": _missing(sweep, arm.label)}
        if arm.label in answers:
            answer = answers[arm.label]
            row |= _ends(answer) | {"p": _number(float(answer.found.p))}
            row |= {"freedom": str(answer.degrees_of_freedom), "verdict": answer.verdict}
            for column, tested in others.items():
                ends = _ends(tested[arm.label], column.factor)
                row |= {f"{column.title} {end}": text for end, text in ends.items()}
        rows.append(row)
    known = {arm.label for arm in sweep.arms}
    for name in dict.fromkeys(lack.arm for lack in sweep.missing_cells if lack.arm not in known):
        missing = _missing(sweep, name)
        rows.append({"arm": name, "verdict": "no result", "missing": missing})
    return _csv(header, rows)


def runs_csv(sweep: SweepRuns) -> str:
    """All scores of all runs, a line each, and by what they can be checked; scores in percent."""
    shown = [column for column in columns(sweep.arms, sweep.split) if column.score]
    header = ["arm", "seed", *(column.title for column in shown), *OF_RUN, *OF_RECEIPT]
    rows = []
    for arm in sweep.arms:
        scores = zip(*(values(arm, column) for column in shown), strict=True)
        for (seed, run), numbers in zip(arm.runs.items(), scores, strict=True):
            row = {"arm": arm.label, "seed": str(seed)}
            row |= {c.title: _number(x) for c, x in zip(shown, numbers, strict=True)}
            row |= {key: str(run.results.get(key, "")) for key in OF_RUN}
            rows.append(row | {key: str(run.receipt.get(key, "")) for key in OF_RECEIPT})
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _ends(answer: ContrastResult, factor: float = 100) -> dict[str, str]:
    """A difference and its interval as they are shown, in points, and its p value."""
    ends = {key: _number(factor * float(getattr(answer.found, key))) for key in ENDS}
    return ends | {"p_holm": _number(answer.p)}


def _missing(sweep: SweepRuns, name: str) -> str:
    return "; ".join(
        f"seed {lack.seed}: {lack.state} {lack.reason}".rstrip()
        for lack in sweep.missing_cells
        if lack.arm == name
    )


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"
