"""One analysis of the same arms on several datasets, each a sweep of its own.

Two questions have two intervals. *On these datasets*: the mean of the differences, with the chance
of images and seeds of each dataset. *On other datasets like these*: each dataset is one block, and
the differences between datasets are the noise, so two datasets can hardly answer it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from gald.comparison.bootstrap import Difference, estimated, holm
from gald.comparison.names import run_names
from gald.comparison.report import Section, screen_table, write_report
from gald.comparison.units import ENOUGH, Units
from gald.run.atomic import new_folder
from gald.sweep.table.analysis import LEVEL, analyse
from gald.sweep.table.arms import Arm, SweepRuns, find_baseline
from gald.sweep.table.columns import Column, values
from gald.sweep.table.consistency import audit
from gald.sweep.table.robust import interquartile_mean, probability_of_improvement

TITLE = "Which arms differ over datasets?"
FEW = 5  # datasets; fewer say little of others
COLUMN = "mIoU"


class Sampling(NamedTuple):
    """How the images of each dataset are drawn: samples, seed, images of a block or None."""

    samples: int
    seed: int
    block: int | None


class _Row(NamedTuple):
    """One arm against the baseline: on these datasets, and on others like them; then its runs."""

    label: str
    each: np.ndarray
    these: Difference
    others: Difference
    seeds_known: bool
    enough: bool  # images, for a verdict
    better: float
    middle: float
    ranks: list[int]


def print_datasets(
    folders: Sequence[Path],
    sweeps: Sequence[SweepRuns],
    baseline: str | None,
    sampling: Sampling,
    to: Path | None = None,
) -> list[Section]:
    """Print the differences of the arms that all sweeps have, and write the report to a folder.

    Args:
        folders: folders of the sweeps, one for each dataset.
        sweeps: their runs.
        baseline: the arm that others are compared with, see `gald table`.
        sampling: how images are drawn.
        to: new folder for the report, or None.

    Raises:
        ValueError: the sweeps have fewer than two arms in common, or two have the same images.
    """
    _refuse_same_images(folders, sweeps)
    common = _common(folders, sweeps)
    names = run_names(folders)
    base = common[find_baseline([Arm(dict(arm), "") for arm in common], _factors(common), baseline)]
    rows = _rows([_restricted(sweep, common) for sweep in sweeps], base, sampling)
    base_label = next(arm.label for arm in sweeps[0].arms if arm.values == base)
    parts = [_differences(rows, names, base_label), _ranks(rows, names)]
    summary = _conclusion(rows, len(names), base_label)
    notes = [
        f"{name}: {_about(folder, sweep, common, sampling.block)}"
        for name, folder, sweep in zip(names, folders, sweeps, strict=True)
    ]
    about = f"Datasets: {', '.join(names)}; {len(common)} arms that all have, split "
    about = " ".join([f"{about}{sweeps[0].split}.", *notes])
    if to is not None:
        words = ["gald", "table", *map(str, folders), "--split", sweeps[0].split]
        words += ["--baseline", baseline] if baseline else []
        words += ["--samples", str(sampling.samples), "--seed", str(sampling.seed)]
        words += [] if sampling.block is None else ["--block", str(sampling.block)]
        with new_folder(to) as partial:
            write_report(partial, TITLE, summary, about, parts, shlex.join(words))
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 400  # in a log, no number is cut
    console.print(summary, style="bold", soft_wrap=True, highlight=False)
    for part in parts:
        console.print(screen_table(part, part.header))
        console.print(part.words, soft_wrap=True, highlight=False)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
    if to is not None:
        console.print(f"report: {to / 'report.html'}", soft_wrap=True)
    return parts


def _refuse_same_images(folders: Sequence[Path], sweeps: Sequence[SweepRuns]) -> None:
    """Refuse one dataset given as two: its images would count as twice as many."""
    for (one, a), (other, b) in combinations(zip(folders, sweeps, strict=True), 2):
        pair = [next(iter(sweep.arms[0].runs.values())) for sweep in (a, b)]
        true_pixels = [run.total[1].tolist() for run in pair]
        if a.images == b.images and true_pixels[0] == true_pixels[1]:
            raise ValueError(
                f"{one} and {other} have the same {len(a.images)} images of {a.split}, so they are "
                f"one dataset and not two; give one of them, or see each alone: gald table {one}"
            )


def _about(
    folder: Path, sweep: SweepRuns, common: Sequence[dict[str, str]], block: int | None
) -> str:
    """Say what was drawn of a dataset, and what its sweep lacks."""
    words = [Units.of(sweep.images, sweep.groups, block).words, sweep.selected, *sweep.notes]
    others = [arm.label for arm in sweep.arms if arm.values not in common]
    if others:
        words.append(f"Not every sweep has {', '.join(others)}; left out.")
    if sweep.missing_cells:
        command = shlex.join(["gald", "table", str(folder), "--split", sweep.split])
        words.append(f"Cells without a run: {len(sweep.missing_cells)}, listed by {command}.")
    if audit(folder):
        command = shlex.join(["gald", "sweep", "audit", str(folder)])
        words.append(f"Cells differ in more than the declared factors, see {command}.")
    return " ".join(filter(None, words))


def _common(folders: Sequence[Path], sweeps: Sequence[SweepRuns]) -> list[dict[str, str]]:
    """Return the values of the arms that all sweeps have, in the order of the first."""
    common = [
        arm.values
        for arm in sweeps[0].arms
        if all(any(other.values == arm.values for other in sweep.arms) for sweep in sweeps)
    ]
    if len(common) < 2:
        factors = "; ".join(
            f"{folder} varies {', '.join(sweep.factors) or 'nothing'}"
            for folder, sweep in zip(folders, sweeps, strict=True)
        )
        raise ValueError(
            f"the {len(sweeps)} sweeps have {len(common)} arms in common, and 2 are needed "
            f"({factors}); declare the same arms for each dataset"
        )
    return common


def _factors(arms: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    return {key: list(dict.fromkeys(arm[key] for arm in arms)) for key in arms[0]}


def _restricted(sweep: SweepRuns, common: Sequence[dict[str, str]]) -> SweepRuns:
    """Return a sweep with the common arms only, in their order."""
    arms = [next(arm for arm in sweep.arms if arm.values == values) for values in common]
    return replace(sweep, arms=arms, factors=_factors(common), primary=None)


def _rows(sweeps: Sequence[SweepRuns], base: dict[str, str], sampling: Sampling) -> list[_Row]:
    place = next(i for i, arm in enumerate(sweeps[0].arms) if arm.values == base)
    found = [analyse(sweep, place, *sampling).differences for sweep in sweeps]
    scores = [[_scores(sweep, arm) for arm in sweep.arms] for sweep in sweeps]
    ranks = [_ranks_of([np.nanmean(one) for one in of_dataset]) for of_dataset in scores]
    others = [index for index in range(len(sweeps[0].arms)) if index != place]
    count, rows = len(sweeps), []
    for index, results in zip(others, zip(*found, strict=True), strict=True):
        each = np.array([float(one.estimate.difference) for one in results])
        sources = [
            (source[0] / count**2, source[1]) for one in results for source in one.estimate.sources
        ]
        mean = np.array(each.mean())
        gains = [one[index] - np.nanmean(one[place]) for one in scores]
        better = [probability_of_improvement(one[index], one[place]) for one in scores]
        rows.append(
            _Row(
                sweeps[0].arms[index].label,
                each,
                estimated(np.array(0.0), mean, *sources),
                estimated(np.array(0.0), mean, (each.var(ddof=1) / count, count - 1)),
                all(one.degrees_of_freedom for one in results),
                all(one.images >= ENOUGH for one in results),
                float(np.mean(better)),
                interquartile_mean(np.concatenate(gains)),
                [of_dataset[index] for of_dataset in ranks],
            )
        )
    baseline = [of_dataset[place] for of_dataset in ranks]
    nothing = estimated(np.array(0.0), np.array(0.0), (0.0, 1))
    zero = np.zeros(count)
    label = sweeps[0].arms[place].label
    return [_Row(label, zero, nothing, nothing, False, True, np.nan, 0.0, baseline), *rows]


def _scores(sweep: SweepRuns, arm: Arm) -> np.ndarray:
    return values(arm, Column(COLUMN, f"{sweep.split}/miou", 100, True, "%"))


def _ranks_of(scores: Sequence[float]) -> list[int]:
    """Return the rank of each score, 1 for the best; equal scores share the better rank."""
    return [1 + sum(other > score for other in scores) for score in scores]


def rank_agreement(first: Sequence[int], second: Sequence[int]) -> float:
    """Compute Kendall's tau-b of two rankings: 1 the same order, -1 reversed; nan without order."""
    pairs = [
        (np.sign(first[i] - first[j]), np.sign(second[i] - second[j]))
        for i, j in combinations(range(len(first)), 2)
    ]
    a, b = np.array(pairs, float).T
    untied = np.sqrt((a != 0).sum() * (b != 0).sum())
    return float((a * b).sum() / untied) if untied else float("nan")


def _differences(rows: Sequence[_Row], names: Sequence[str], base: str) -> Section:
    p = holm(np.array([float(row.these.p) if row.seeds_known else np.nan for row in rows[1:]]))
    cells = [
        [
            row.label,
            *(f"{100 * value:+.2f}" for value in row.each),
            f"{100 * row.these.difference:+.2f}",
            _interval(row.these),
            _verdict(row, adjusted),
            _interval(row.others),
            f"{100 * row.better:.0f}%",
            f"{row.middle:+.2f}",
        ]
        for row, adjusted in zip(rows[1:], p, strict=True)
    ]
    words = (
        f"mIoU differences from {base} in points. The mean counts every dataset once. 'On these': "
        "95% interval of the mean on these datasets, with the chance of their images and seeds; "
        f"the conclusion is corrected for {len(cells)} arms (Holm). 'On others': 95% interval if "
        "datasets are one draw from many like them. P(better): share of pairs of runs in which the "
        "arm is better than the baseline, mean over datasets. Interquartile mean: mean gain of the "
        "middle half of all runs over the baseline's mean on their dataset."
    )
    if len(names) < FEW:
        words += f" {len(names)} datasets say little about others: read 'on others' with care."
    header = ["arm", *names, "mean", "on these", "conclusion", "on others"]
    return Section("Datasets", words, [*header, "P(better)", "interquartile mean"], cells)


def _verdict(row: _Row, adjusted: float) -> str:
    if not row.seeds_known:
        return "seeds unknown"
    if not row.enough:
        return "too few images"
    if row.these.clear and adjusted < LEVEL:
        return "better" if row.these.difference > 0 else "worse"
    return "noise after Holm" if row.these.clear else "noise"


def _interval(row: Difference) -> str:
    return f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"


def _ranks(rows: Sequence[_Row], names: Sequence[str]) -> Section:
    ranks = [[row.ranks[k] for row in rows] for k in range(len(names))]
    pairs = list(combinations(range(len(names)), 2))
    known = [tau for i, j in pairs if (tau := rank_agreement(ranks[i], ranks[j])) == tau]
    words = "Rank of each arm by its mean mIoU. "
    if known:
        words += (
            f"Agreement of the rankings (Kendall's tau, mean of {len(known)} pairs of datasets): "
            f"{np.mean(known):.2f}; 1 is the same order everywhere, 0 no relation. Ranks of arms "
            "that differ by noise change by chance."
        )
    cells = [[row.label, *map(str, row.ranks), f"{np.mean(row.ranks):.1f}"] for row in rows]
    return Section("Ranks", words.strip(), ["arm", *names, "mean rank"], cells)


def _conclusion(rows: Sequence[_Row], count: int, base: str) -> str:
    p = holm(np.array([float(row.these.p) if row.seeds_known else np.nan for row in rows[1:]]))
    found = [row for row, one in zip(rows[1:], p, strict=True) if _verdict(row, one)[0] in "bw"]
    if not all(row.enough for row in rows):
        return f"No verdict: each dataset needs {ENOUGH} images or more."
    if not found:
        return (
            f"Inside the noise: no arm differs from {base} in the mean of these {count} datasets."
        )
    top = max(found, key=lambda row: abs(float(row.these.difference)))
    return (
        f"{len(found)} of {len(rows) - 1} arms differ from {base} in the mean of these {count} "
        f"datasets; the largest difference in mIoU is that of {top.label}, "
        f"{100 * top.these.difference:+.2f} points (95% interval {_interval(top.these)})."
    )
