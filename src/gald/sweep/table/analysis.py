"""All that a table says of a sweep, as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from gald.comparison.bootstrap import Difference, class_iou, holm, mean_iou, resampled
from gald.comparison.differences import one_by_one
from gald.comparison.runs import EvaluatedRun
from gald.sweep.table import effects
from gald.sweep.table.arms import SweepRuns
from gald.sweep.table.columns import Column, columns
from gald.sweep.table.contrasts import contrast, seed_deviation
from gald.sweep.table.effects import Contrast

LEVEL = 0.05
FEW_SAMPLES = 2000  # intervals need fewer draws than the small p values of many arms


@dataclass(frozen=True)
class ContrastResult:
    """What the runs say to one question.

    Args:
        question: the weighted sum of arms.
        found: its difference, as shares.
        p: p value after Holm's correction over all questions of its kind.
        degrees_of_freedom: of the seeds' noise; 0: no seed was repeated.
        higher_is_better: whether the larger of two scores is the better one.
    """

    question: Contrast
    found: Difference
    p: float
    degrees_of_freedom: int
    higher_is_better: bool = True

    @property
    def clear(self) -> bool:
        """Whether it is more than noise: interval off 0, after Holm too, seeds repeated."""
        return bool(self.degrees_of_freedom > 0 and self.found.clear and self.p < LEVEL)

    @property
    def verdict(self) -> str:
        """Better, worse, or why that cannot be said."""
        if np.isnan(self.found.p):
            return "absent"
        if self.degrees_of_freedom == 0:
            return "seeds unknown"
        if self.clear:
            gained = (self.found.difference > 0) == self.higher_is_better
            return "better" if gained else "worse"
        return "noise after Holm" if self.found.clear else "noise"


@dataclass(frozen=True)
class Analysis:
    """Answers to the questions about a sweep.

    Args:
        baseline: place of the arm that all are compared with.
        differences: of every other arm from it, in order.
        main_effects: of each level of each factor.
        interactions: of each two levels of two factors.
        elsewhere: by title of a score beside the mIoU, what `differences` and, of several factors,
            `main_effects` ask, in this order.
        classes: IoU difference of each other arm, arrays (K,), in order.
        deviation: of mIoU between seeds, pooled over arms; None where none was repeated.
        images: that each run was judged on.
        samples: draws.
    """

    baseline: int
    differences: list[ContrastResult]
    main_effects: list[ContrastResult]
    interactions: list[ContrastResult]
    other_scores: dict[Column, list[ContrastResult]]
    classes: list[Difference]
    deviation: float | None
    images: int
    samples: int


def analyse(sweep: SweepRuns, baseline: int, samples: int = 10_000, seed: int = 0) -> Analysis:
    """Compare all arms of a sweep with one of them, and work out the factors' effects.

    Args:
        sweep: its runs.
        baseline: place of an arm.
        samples: how often images are drawn.
        seed: what they are drawn from.
    """
    runs = [run for arm in sweep.arms for run in arm.runs.values()]
    arms = [place for place, arm in enumerate(sweep.arms) for _ in arm.runs]
    seeds = [number for arm in sweep.arms for number in arm.runs]
    whole: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    of_classes: list[np.ndarray] = []
    for run in track(runs, "drawing images", console=Console(stderr=True), transient=True):
        counts = run.class_counts
        whole.append(_both(counts.sum(0, keepdims=True))[0])
        drawn.append(resampled(counts, _mean, samples, seed))
        of_classes.append(resampled(counts, class_iou, min(samples, FEW_SAMPLES), seed))
    scores = np.stack(whole)

    def ask(
        questions: Sequence[Contrast],
        values: np.ndarray,
        samples: np.ndarray,
        higher_is_better: bool = True,
    ) -> list[ContrastResult]:
        found = [contrast(arms, seeds, q.weights, values, samples, seed) for q in questions]
        adjusted = holm(np.array([row.p[0] for row, _ in found]))
        return [
            ContrastResult(
                q,
                Difference(*(part[0] for part in row)),
                float(p),
                int(degrees_of_freedom[0]),
                higher_is_better,
            )
            for q, (row, degrees_of_freedom), p in zip(questions, found, adjusted, strict=True)
        ]

    base = sweep.arms[baseline].values
    asked = effects.differences(sweep.arms, baseline)
    main = effects.main_effects(sweep.arms, sweep.factors, base)
    averaged = main if len(sweep.factors) > 1 else []  # of one factor they are the differences
    miou = scores[:, :1], np.stack(drawn, 1)
    other_scores = {}
    for column in columns(sweep.arms, sweep.split):
        few = min(samples, FEW_SAMPLES)
        numbers = _other_score(runs, column, sweep.split, few, seed)
        if numbers is not None:
            better = column.higher_is_better
            tested = ask(asked, *numbers, better) + ask(averaged, *numbers, better)
            other_scores[column] = tested
    classes = np.stack(of_classes, 1)
    return Analysis(
        baseline,
        ask(asked, *miou),
        ask(main, *miou),
        ask(effects.interactions(sweep.arms, sweep.factors, base), *miou),
        other_scores,
        [contrast(arms, seeds, q.weights, scores[:, 1:], classes, seed)[0] for q in asked],
        seed_deviation(arms, scores[:, 0]),
        len(runs[0].class_counts),
        samples,
    )


def _other_score(
    runs: Sequence[EvaluatedRun], column: Column, split: str, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """A score other than the mIoU of all runs (runs, 1), and on drawn images (S, runs, 1).

    None where it is no score, or a run lacks the counts that it is made of.
    """
    key, names = column.key.removeprefix(f"{split}/"), runs[0].class_names
    metric = next((m for m in runs[0].metrics if key in m.score_keys(names)), None)
    if metric is None or metric.name == "confusion":
        return None
    if not all(metric.name in run.images.metrics for run in runs):
        return None
    score = one_by_one(metric, names, [key])
    tables = [run.images.dense(metric.name) for run in runs]
    shown = track(tables, column.title, console=Console(stderr=True), transient=True)
    drawn = [resampled(table, score, samples, seed) for table in shown]
    return np.concatenate([score(table.sum(0)[None]) for table in tables]), np.stack(drawn, 1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return mean_iou(sums)[..., None]


def _both(sums: np.ndarray) -> np.ndarray:
    """The mIoU, then the IoU of each class (S, 1 + K)."""
    return np.concatenate([_mean(sums), class_iou(sums)], -1)
