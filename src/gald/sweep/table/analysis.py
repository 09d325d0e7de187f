"""Statistics of a sweep: differences between arms, effects of factors, differences by class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from gald.comparison.bootstrap import Difference, Draws, Score, class_iou, holm, mean_iou
from gald.metrics.base import CountMetric
from gald.sweep.table import effects
from gald.sweep.table.arms import FinishedRun, SweepRuns
from gald.sweep.table.columns import Column, columns
from gald.sweep.table.contrasts import Estimator, seed_deviation
from gald.sweep.table.effects import Contrast

LEVEL = 0.05
FEW_SAMPLES = 2000  # intervals need fewer draws than the small p values of many arms
CLASS_CELLS = 2**23  # of the table of drawn class IoUs: 64 MB; more classes are drawn in turn


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
        columns: scores and costs of the runs.
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
    columns: list[Column]
    differences: list[ContrastResult]
    main_effects: list[ContrastResult]
    interactions: list[ContrastResult]
    other_scores: dict[Column, list[ContrastResult]]
    classes: list[Difference]
    deviation: float | None
    images: int
    samples: int


class _Counted(NamedTuple):
    """Score, other than mIoU, of a metric with counts of every image.

    Attributes:
        column: the score.
        metric: the metric that it is one of.
        places: places of the counts that decide it.
        score: function from the sums of these counts (S, places) to the score (S, 1).
    """

    column: Column
    metric: CountMetric
    places: np.ndarray
    score: Score


class _Drawn(NamedTuple):
    """Scores of all runs on the draws; the draws are the same for all.

    Attributes:
        miou: mIoU (S, runs, 1).
        others: for each other score that on all images (runs, 1) and on draws (S, runs, 1).
        classes: IoU (S, runs, k) of the first k classes; the memory is for no more.
    """

    miou: np.ndarray
    others: list[tuple[np.ndarray, np.ndarray]]
    classes: np.ndarray


def analyse(sweep: SweepRuns, baseline: int, samples: int = 10_000, seed: int = 0) -> Analysis:
    """Compare all arms of a sweep with the baseline, and estimate the effects of the factors.

    Runs are read one after the other, and only their scores on the draws of images are kept. So
    memory does not grow with the number of images.

    Args:
        sweep: the runs of the sweep.
        baseline: index of the baseline arm.
        samples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Raises:
        ValueError: a run has changed since the sweep was read.
    """
    runs = [run for arm in sweep.arms for run in arm.runs.values()]
    arms = [index for index, arm in enumerate(sweep.arms) for _ in arm.runs]
    seeds = [number for arm in sweep.arms for number in arm.runs]
    shown = columns(sweep.arms, sweep.split)
    counted = [one for column in shown if (one := _counted(runs, column, sweep.split))]
    draws = Draws(runs[0].image_count, samples, seed)
    drawn = _draw(runs, counted, draws)

    def estimate(
        contrasts: Sequence[Contrast],
        values: np.ndarray,
        samples: np.ndarray,
        higher_is_better: bool = True,
    ) -> list[ContrastResult]:
        weights = [one.weights for one in contrasts]
        estimates = list(Estimator(arms, seeds, values, seed).estimate(weights, samples))
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
    totals = np.stack([run.total for run in runs])
    miou = mean_iou(totals)[:, None], drawn.miou
    other_scores = {}
    for (column, *_), numbers in zip(counted, drawn.others, strict=True):
        better = column.higher_is_better
        other_scores[column] = [
            *estimate(differences, *numbers, better),
            *estimate(averaged, *numbers, better),
        ]
    classes = Estimator(arms, seeds, class_iou(totals), seed)
    weights = [one.weights for one in differences]
    by_block: list[list[Difference]] = [
        [found for found, _ in classes.estimate(weights, block, first)]
        for first, block in _class_blocks(runs, draws, drawn.classes)
    ]
    return Analysis(
        baseline,
        shown,
        estimate(differences, *miou),
        estimate(main, *miou),
        estimate(effects.interactions(sweep.arms, sweep.factors, base), *miou),
        other_scores,
        [
            Difference(*map(np.concatenate, zip(*parts, strict=True)))
            for parts in zip(*by_block, strict=True)
        ],
        seed_deviation(arms, miou[0][:, 0]),
        draws.images,
        samples,
    )


def _counted(runs: Sequence[FinishedRun], column: Column, split: str) -> _Counted | None:
    """Return how a column is scored from counts.

    None for mIoU and for costs, and if a run has no counts of the metric.
    """
    key, names = column.key.removeprefix(f"{split}/"), runs[0].class_names
    metric = next((m for m in runs[0].metrics if key in m.score_keys(names)), None)
    if metric is None or metric.name == "confusion":
        return None
    if not all(metric.name in run.counted for run in runs):
        return None
    places = metric.places(key)

    def score(sums: np.ndarray) -> np.ndarray:
        counts = np.zeros((len(sums), metric.width))
        counts[:, places] = sums
        return metric.scores_of_sets(counts, names)[key][:, None]

    return _Counted(column, metric, places, score)


def _draw(runs: Sequence[FinishedRun], counted: Sequence[_Counted], draws: Draws) -> _Drawn:
    """Score all runs on the draws, one run after the other."""
    few, classes = min(draws.samples, FEW_SAMPLES), len(runs[0].class_names)
    # The draws of a run are next to each other in memory.
    miou = np.empty((len(runs), draws.samples, 1))
    others = [(np.empty((len(runs), 1)), np.empty((len(runs), few, 1))) for _ in counted]
    iou = np.empty((len(runs), few, min(classes, _block_of_classes(runs, few))))
    for place, run in enumerate(_track(runs, "drawing images")):
        images, counts = run.read()
        scores = np.concatenate(list(draws.score(counts, _miou_and_class_iou)))
        miou[place] = scores[:, :1]
        iou[place] = scores[:few, 1 : 1 + iou.shape[-1]]
        for one, (whole, sets) in zip(counted, others, strict=True):
            table = images.dense(one.metric.name)[:, one.places]
            whole[place] = one.score(table.sum(0)[None])[0]
            sets[place] = np.concatenate(list(draws.score(table, one.score, few)))
    swapped = [(whole, sets.swapaxes(0, 1)) for whole, sets in others]
    return _Drawn(miou.swapaxes(0, 1), swapped, iou.swapaxes(0, 1))


def _class_blocks(
    runs: Sequence[FinishedRun], draws: Draws, drawn: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the IoU of all classes on draws in blocks (S, runs, k), and the first class of each.

    Args:
        runs: the runs, which are read again for each block but the first.
        draws: the draws.
        drawn: the first block.
    """
    few, block = len(drawn), drawn.shape[-1]
    yield 0, drawn
    for first in range(block, len(runs[0].class_names), block):
        chosen = slice(first, first + block)
        iou = np.empty((len(runs), few, len(range(len(runs[0].class_names))[chosen])))
        for place, run in enumerate(_track(runs, f"drawing images, class {first} and on")):
            counts = run.class_counts[..., chosen]
            iou[place] = np.concatenate(list(draws.score(counts, class_iou, few)))
        yield first, iou.swapaxes(0, 1)


def _block_of_classes(runs: Sequence[FinishedRun], samples: int) -> int:
    return max(1, CLASS_CELLS // (len(runs) * samples))


def _track(runs: Sequence[FinishedRun], what: str) -> Iterable[FinishedRun]:
    console = Console(markup=False, emoji=False, stderr=True)
    return track(runs, what, console=console, transient=True)


def _miou_and_class_iou(sums: np.ndarray) -> np.ndarray:
    """Return the mIoU, then the IoU of each class (S, 1 + K)."""
    return np.concatenate([mean_iou(sums)[:, None], class_iou(sums)], -1)
