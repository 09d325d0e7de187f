"""Statistics of a sweep: differences between arms, effects of factors, differences by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from gald.comparison.bootstrap import Difference, class_iou, holm, mean_iou, resampled
from gald.comparison.differences import scores_by_key
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
    """Estimate of one contrast from the runs of a sweep.

    Args:
        contrast: a weighted sum of arms.
        estimate: its difference with interval, as fractions.
        p: p value after Holm's correction over all contrasts of the same kind.
        degrees_of_freedom: of the noise between seeds; 0: no seed was repeated.
        higher_is_better: whether a larger score is better.
    """

    contrast: Contrast
    estimate: Difference
    p: float
    degrees_of_freedom: int
    higher_is_better: bool = True

    @property
    def clear(self) -> bool:
        """Whether it is more than noise: interval without 0, p (Holm) below 5%, repeated seeds."""
        return bool(self.degrees_of_freedom > 0 and self.estimate.clear and self.p < LEVEL)

    @property
    def conclusion(self) -> str:
        """Conclusion: better, worse, noise, or the reason why there is none."""
        if np.isnan(self.estimate.p):
            return "absent"
        if self.degrees_of_freedom == 0:
            return "seeds unknown"
        if self.clear:
            gained = (self.estimate.difference > 0) == self.higher_is_better
            return "better" if gained else "worse"
        return "noise after Holm" if self.estimate.clear else "noise"


@dataclass(frozen=True)
class Analysis:
    """All estimates for a sweep; of mIoU unless another score is named.

    Args:
        baseline: index of the arm that the others are compared with.
        differences: difference of every other arm from the baseline, in order.
        main_effects: effect of each level of each factor.
        interactions: interaction of every two levels of two factors.
        other_scores: for each column with another score, its `differences`, then with several
            factors its `main_effects`.
        classes: IoU difference of each other arm, arrays (K,), in order.
        deviation: standard deviation of mIoU between seeds, pooled over arms; None if no seed was
            repeated.
        images: number of images that each run was evaluated on.
        samples: number of bootstrap samples.
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
    """Compare all arms of a sweep with the baseline, and estimate the effects of the factors.

    Args:
        sweep: the runs of the sweep.
        baseline: index of the baseline arm.
        samples: number of bootstrap samples.
        seed: seed of the bootstrap.
    """
    runs = [run for arm in sweep.arms for run in arm.runs.values()]
    arms = [index for index, arm in enumerate(sweep.arms) for _ in arm.runs]
    seeds = [number for arm in sweep.arms for number in arm.runs]
    whole: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    drawn_classes: list[np.ndarray] = []
    for run in track(
        runs,
        "drawing images",
        console=Console(markup=False, emoji=False, stderr=True),
        transient=True,
    ):
        counts = run.class_counts
        whole.append(_miou_and_class_iou(counts.sum(0, keepdims=True))[0])
        drawn.append(resampled(counts, _miou, samples, seed))
        drawn_classes.append(resampled(counts, class_iou, min(samples, FEW_SAMPLES), seed))
    scores = np.stack(whole)

    def estimate(
        contrasts: Sequence[Contrast],
        values: np.ndarray,
        samples: np.ndarray,
        higher_is_better: bool = True,
    ) -> list[ContrastResult]:
        estimates = [contrast(arms, seeds, c.weights, values, samples, seed) for c in contrasts]
        adjusted = holm(np.array([difference.p[0] for difference, _ in estimates]))
        return [
            ContrastResult(
                one,
                Difference(*(part[0] for part in difference)),
                float(p),
                int(degrees_of_freedom[0]),
                higher_is_better,
            )
            for one, (difference, degrees_of_freedom), p in zip(
                contrasts, estimates, adjusted, strict=True
            )
        ]

    base = sweep.arms[baseline].values
    differences = effects.differences(sweep.arms, baseline)
    main = effects.main_effects(sweep.arms, sweep.factors, base)
    averaged = main if len(sweep.factors) > 1 else []  # with one factor they equal the differences
    miou = scores[:, :1], np.stack(drawn, 1)
    other_scores = {}
    for column in columns(sweep.arms, sweep.split):
        few = min(samples, FEW_SAMPLES)
        numbers = _other_score(runs, column, sweep.split, few, seed)
        if numbers is not None:
            better = column.higher_is_better
            other_scores[column] = [
                *estimate(differences, *numbers, better),
                *estimate(averaged, *numbers, better),
            ]
    classes = np.stack(drawn_classes, 1)
    return Analysis(
        baseline,
        estimate(differences, *miou),
        estimate(main, *miou),
        estimate(effects.interactions(sweep.arms, sweep.factors, base), *miou),
        other_scores,
        [contrast(arms, seeds, c.weights, scores[:, 1:], classes, seed)[0] for c in differences],
        seed_deviation(arms, scores[:, 0]),
        len(runs[0].class_counts),
        samples,
    )


def _other_score(
    runs: Sequence[EvaluatedRun], column: Column, split: str, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return another score than mIoU on all images (runs, 1) and on drawn images (S, runs, 1).

    None for mIoU and for costs, and if a run has no per-image counts of the metric.
    """
    key, names = column.key.removeprefix(f"{split}/"), runs[0].class_names
    metric = next((m for m in runs[0].metrics if key in m.score_keys(names)), None)
    if metric is None or metric.name == "confusion":
        return None
    if not all(metric.name in run.images.metrics for run in runs):
        return None
    score = scores_by_key(metric, names, [key])
    tables = [run.images.dense(metric.name) for run in runs]
    shown = track(
        tables,
        escape(column.title),
        console=Console(markup=False, emoji=False, stderr=True),
        transient=True,
    )
    drawn = [resampled(table, score, samples, seed) for table in shown]
    return np.concatenate([score(table.sum(0)[None]) for table in tables]), np.stack(drawn, 1)


def _miou(sums: np.ndarray) -> np.ndarray:
    return mean_iou(sums)[..., None]


def _miou_and_class_iou(sums: np.ndarray) -> np.ndarray:
    """Return the mIoU, then the IoU of each class (S, 1 + K)."""
    return np.concatenate([_miou(sums), class_iou(sums)], -1)
