"""Numbers of a sweep as CSV: one table with a line per arm, one with a line per run."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from gald.sweep.table.analysis import Analysis, ContrastResult
from gald.sweep.table.arms import SweepRuns
from gald.sweep.table.columns import mean_and_deviation, values

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
ENDS = ("difference", "low", "high")
RUN_KEYS = ("seconds", "epochs", "device", "precision", "commit")
RECEIPT_KEYS = ("checkpoint_sha256", "predictions_sha256", "images_sha256", "ground_truth_sha256")


def arms_csv(sweep: SweepRuns, analysis: Analysis) -> str:
    """Return all numbers, one line per arm, also for arms without a run; scores in percent."""
    shown = analysis.columns
    results = {result.contrast.name: result for result in analysis.differences}
    other_scores = {
        column: {result.contrast.name: result for result in column_results}
        for column, column_results in analysis.other_scores.items()
    }
    header = ["arm", *sweep.factors, "seeds"]
    for column in shown:
        header += [column.title, f"{column.title} sd"] if column.score else [column.title]
    header += [*ENDS, "p", "p_holm", "degrees_of_freedom", "conclusion", "role"]
    header += [f"{column.title} {end}" for column in other_scores for end in (*ENDS, "p_holm")]
    header.append("missing")
    rows = []
    for arm in sweep.arms:
        row = {"arm": arm.label, **arm.values, "seeds": " ".join(map(str, arm.runs))}
        for column in shown:
            mean, deviation, _ = mean_and_deviation(values(arm, column))
            row[column.title] = _number(mean)
            if column.score:
                row[f"{column.title} sd"] = _number(deviation)
        row |= {"conclusion": "baseline", "missing": _missing(sweep, arm.label)}
        if arm.label in results:
            result = results[arm.label]
            row |= _ends(result) | {"p": _number(float(result.estimate.p))}
            row |= {"degrees_of_freedom": str(result.degrees_of_freedom)}
            row |= {"conclusion": result.conclusion, "role": "exploratory"}
            for column, column_results in other_scores.items():
                ends = _ends(column_results[arm.label], column.factor)
                row |= {f"{column.title} {end}": text for end, text in ends.items()}
        rows.append(row)
    known = {arm.label for arm in sweep.arms}
    for name in dict.fromkeys(cell.arm for cell in sweep.missing_cells if cell.arm not in known):
        missing = _missing(sweep, name)
        rows.append({"arm": name, "conclusion": "no result", "missing": missing})
    return _csv(header, rows)


def contrasts_csv(analysis: Analysis) -> str:
    """Return one line per contrast and score: the primary one, then the exploratory ones."""
    answer, primary = analysis.answer, analysis.primary
    tested = [] if not (answer and primary) else [("primary", primary.score, answer)]
    of_miou = (analysis.differences, analysis.main_effects, analysis.given, analysis.interactions)
    tested += [("exploratory", "mIoU", one) for results in of_miou for one in results]
    tested += [
        ("exploratory", column.title, one)
        for column, results in analysis.other_scores.items()
        for one in results
    ]
    header = ["role", "contrast", "score", "settings", *ENDS, "p", "p_holm", "degrees_of_freedom"]
    rows = [
        {
            "role": role,
            "contrast": one.contrast.name,
            "score": score,
            "settings": str(one.contrast.settings),
            "p": _number(float(one.estimate.p)),
            "degrees_of_freedom": str(one.degrees_of_freedom),
            "conclusion": one.conclusion,
            **_ends(one, analysis.factor_of(score)),
        }
        for role, score, one in tested
    ]
    return _csv([*header, "conclusion"], rows)


def runs_csv(sweep: SweepRuns, analysis: Analysis) -> str:
    """Return all scores and the hashes of the receipt, one line per run; scores in percent."""
    shown = [column for column in analysis.columns if column.score]
    header = ["arm", "seed", *(column.title for column in shown), *RUN_KEYS, *RECEIPT_KEYS]
    rows = []
    for arm in sweep.arms:
        scores = zip(*(values(arm, column) for column in shown), strict=True)
        for (seed, run), numbers in zip(arm.runs.items(), scores, strict=True):
            row = {"arm": arm.label, "seed": str(seed)}
            row |= {c.title: _number(x) for c, x in zip(shown, numbers, strict=True)}
            row |= {key: str(run.results.get(key, "")) for key in RUN_KEYS}
            rows.append(row | {key: str(run.receipt.get(key, "")) for key in RECEIPT_KEYS})
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(cell, header))
    writer.writerows([cell(row.get(key, "")) for key in header] for row in rows)
    return file.getvalue()


def cell(text: str) -> str:
    """Return a cell that a spreadsheet shows as it is: numbers as numbers, all else as text.

    A spreadsheet runs text that begins like a formula; an apostrophe before it makes it text.
    """
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def _ends(result: ContrastResult, factor: float = 100) -> dict[str, str]:
    """Return a difference and its interval in points, and its corrected p value."""
    ends = {key: _number(factor * float(getattr(result.estimate, key))) for key in ENDS}
    return ends | {"p_holm": _number(result.p)}


def _missing(sweep: SweepRuns, name: str) -> str:
    return "; ".join(
        f"seed {cell.seed}: {cell.state} {cell.reason}".rstrip()
        for cell in sweep.missing_cells
        if cell.arm == name
    )


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"
