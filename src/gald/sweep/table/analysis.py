"""Statistics of a sweep: differences between arms, effects of factors, differences by class."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from gald.comparison.bootstrap import (
    Difference,
    Draws,
    Score,
    holm,
    true_class_iou,
    true_mean_iou,
    units_with,
)
from gald.comparison.units import ENOUGH, Units
from gald.metrics.base import CountMetric
from gald.sweep.table import effects
from gald.sweep.table.arms import FinishedRun, SweepRuns
from gald.sweep.table.columns import Column, columns
from gald.sweep.table.contrasts import Deviation, Estimator, seed_deviation
from gald.sweep.table.effects import Contrast
from gald.sweep.table.primary import MIOU, Primary, read_primary

LEVEL = 0.05
FEW_SAMPLES = 2000  # give a standard error to 2%
ROWS = 256  # images that are scored one by one at once
CLASS_CELLS = 2**23  # of the table of drawn class IoUs: 64 MB; more classes are drawn in turn


@dataclass
class ContrastResult:
    """Estimate of one contrast from the runs of a sweep.

    Args:
        contrast: a weighted sum of arms.
        estimate: its difference with interval, as fractions.
        degrees_of_freedom: of the noise between seeds; 0: no seed was repeated.
        higher_is_better: whether a larger score is better.
        p: p value after Holm's correction over its family, see `correct`.
        images: number of images of each run; fewer than `ENOUGH` give no verdict.
    """

    contrast: Contrast
    estimate: Difference
    degrees_of_freedom: int
    higher_is_better: bool = True
    p: float = np.nan
    images: int = ENOUGH

    @property
    def clear(self) -> bool:
        """Whether it is more than noise: interval without 0, p (Holm) below 5%.

        Never with fewer than `ENOUGH` images, or without repeated seeds.
        """
        known = self.degrees_of_freedom > 0 and self.images >= ENOUGH
        return bool(known and self.estimate.clear and self.p < LEVEL)

    @property
    def conclusion(self) -> str:
        """Conclusion: better, worse, noise, or the reason why there is none."""
        if np.isnan(self.estimate.difference):
            return "absent"
        if self.degrees_of_freedom == 0:
            return "seeds unknown"
        if np.isnan(self.estimate.p) or self.images < ENOUGH:
            return "too few images"
        if self.clear:
            gained = (self.estimate.difference > 0) == self.higher_is_better
            return "better" if gained else "worse"
        return "noise after Holm" if self.estimate.clear else "noise"


@dataclass
class Analysis:
    """All estimates for a sweep; of mIoU unless another score is named.

    Args:
        baseline: index of the arm that the others are compared with.
        columns: scores and costs of the runs.
        differences: difference of every other arm from the baseline, in order.
        main_effects: effect of each level of each factor; none for a single factor, where they
            equal the differences.
        given: effect of each level where another factor has a given level.
        interactions: interaction of every two levels of two factors.
        other_scores: for each column with another score, its `differences`, then with several
            factors its `main_effects` and its `given`.
        classes: IoU difference of each other arm, arrays (K,), in order.
        class_p: their p values after Holm's correction, arrays (K,).
        tests: number of exploratory tests, see `correct`.
        declared: words of the primary contrast of the sweep, or None.
        primary: that contrast; None if there is none, or the sweep has no arms of it yet.
        answer: its estimate; None if there is no primary contrast, or no runs for it.
        deviation: deviation of mIoU between seeds, as a fraction; None if no seed was repeated.
        units: what the bootstrap draws.
        samples: number of bootstrap samples.
    """

    baseline: int
    columns: list[Column]
    differences: list[ContrastResult]
    main_effects: list[ContrastResult]
    given: list[ContrastResult]
    interactions: list[ContrastResult]
    other_scores: dict[Column, list[ContrastResult]]
    classes: list[Difference]
    deviation: Deviation | None
    units: Units
    samples: int
    class_p: list[np.ndarray] = field(default_factory=list)
    tests: int = 0
    declared: str | None = None
    primary: Primary | None = None
    answer: ContrastResult | None = None

    def factor_of(self, score: str) -> float:
        """Return the factor from a stored score, by its name, to the number that is shown."""
        word = score.casefold()
        named = (c.factor for c in self.columns if word in (c.name.casefold(), c.title.casefold()))
        return next(named, 100.0)

    @property
    def images(self) -> int:
        """Number of images that each run was evaluated on."""
        return len(self.units.of_image)

    def correct(self) -> None:
        """Correct the p values of the whole report, in two families.

        The first is the question of the sweep: its primary contrast, or, if none was declared, the
        differences of the arms in mIoU. The second is everything else that is tested, and
        exploratory. Holm's correction keeps the chance of any false star below 5% in each, so below
        10% in the report.
        """
        rest = [*self.main_effects, *self.given, *self.interactions]
        if self.declared is None:
            _correct(self.differences)
        else:
            _correct([self.answer] if self.answer else [])
            rest = [*self.differences, *rest]
        rest += [one for results in self.other_scores.values() for one in results]
        self.class_p, self.tests = _correct(rest, [row.p for row in self.classes])


def _correct(
    results: Sequence[ContrastResult], more: Sequence[np.ndarray] = ()
) -> tuple[list[np.ndarray], int]:
    """Set the corrected p values of some results, and return those of more tests."""
    seeds_known = [one.estimate.p if one.degrees_of_freedom else np.nan for one in results]
    p = np.concatenate([np.array(seeds_known, float), *more])
    adjusted = holm(p)
    for one, value in zip(results, adjusted, strict=False):
        one.p = float(value)
    ends = np.cumsum([len(results), *map(len, more)])
    parts = [adjusted[start:end] for start, end in pairwise(ends)]
    return parts, int(np.count_nonzero(~np.isnan(p)))


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


class _Scored(NamedTuple):
    """One score of all runs.

    Attributes:
        whole: on all images (runs, 1).
        drawn: on each draw, which is the same for all runs (S, runs, 1).
        units: number of units of the bootstrap that decide it (1,).
    """

    whole: np.ndarray
    drawn: np.ndarray
    units: np.ndarray


class _Drawn(NamedTuple):
    """Scores of all runs on the draws; the draws are the same for all.

    Attributes:
        miou: the mIoU.
        others: each other score.
        classes: IoU (S, runs, k) of the first k classes; the memory is for no more.
        units_of_class: number of units of the bootstrap with each class (K,).
    """

    miou: _Scored
    others: list[_Scored]
    classes: np.ndarray
    units_of_class: np.ndarray


def analyse(
    sweep: SweepRuns,
    baseline: int,
    samples: int = 10_000,
    seed: int = 0,
    block: int | None = None,
) -> Analysis:
    """Compare all arms of a sweep with the baseline, and estimate the effects of the factors.

    Runs are read one after the other, and only their scores on the draws of images are kept. So
    memory does not grow with the number of images.

    Args:
        sweep: the runs of the sweep.
        baseline: index of the baseline arm.
        samples: number of bootstrap samples.
        seed: seed of the bootstrap.
        block: images that are drawn together, see `Units.of`.

    Raises:
        ValueError: a run has changed since the sweep was read, or there is one block only.
    """
    units = Units.of(sweep.images, sweep.groups, block)
    runs = [run for arm in sweep.arms for run in arm.runs.values()]
    arms = [index for index, arm in enumerate(sweep.arms) for _ in arm.runs]
    seeds = [number for arm in sweep.arms for number in arm.runs]
    shown = columns(sweep.arms, sweep.split)
    counted = [one for column in shown if (one := _counted(runs, column, sweep.split))]
    draws = Draws(units.count, samples, seed)
    drawn = _draw(runs, counted, draws, units)

    def estimate(
        contrasts: Sequence[Contrast], scored: _Scored, higher_is_better: bool = True
    ) -> list[ContrastResult]:
        weights = [one.weights for one in contrasts]
        estimator = Estimator(arms, seeds, scored.whole, scored.units)
        return [
            ContrastResult(
                one,
                difference.of(0),
                int(degrees_of_freedom[0]),
                higher_is_better,
                images=len(sweep.images),
            )
            for one, (difference, degrees_of_freedom) in zip(
                contrasts, estimator.estimate(weights, scored.drawn), strict=True
            )
        ]

    base = sweep.arms[baseline].values
    differences = effects.differences(sweep.arms, baseline)
    main = effects.main_effects(sweep.arms, sweep.factors, base) if len(sweep.factors) > 1 else []
    given = effects.given_levels(sweep.arms, sweep.factors, base)
    shown_contrasts = [*differences, *main, *given]
    totals = np.stack([run.total for run in runs])
    classes = Estimator(arms, seeds, true_class_iou(totals), drawn.units_of_class)
    weights = [one.weights for one in differences]
    enough = len(sweep.images) >= ENOUGH
    by_block: list[list[Difference]] = [
        [
            found._replace(p=np.where(freedom * enough, found.p, np.nan))  # then no star
            for found, freedom in classes.estimate(weights, block_of_classes, first)
        ]
        for first, block_of_classes in _class_blocks(runs, draws, drawn.classes, units)
    ]
    result = Analysis(
        baseline,
        shown,
        estimate(differences, drawn.miou),
        estimate(main, drawn.miou),
        estimate(given, drawn.miou),
        estimate(effects.interactions(sweep.arms, sweep.factors, base), drawn.miou),
        {
            one.column: estimate(shown_contrasts, scored, one.column.higher_is_better)
            for one, scored in zip(counted, drawn.others, strict=True)
        },
        [
            Difference(*(np.concatenate(part, -1) for part in zip(*parts, strict=True)))
            for parts in zip(*by_block, strict=True)
        ],
        seed_deviation(arms, seeds, drawn.miou.whole[:, 0]),
        units,
        samples,
    )
    result.declared = sweep.primary
    with suppress(ValueError):  # a part of a declared sweep may lack the arms of its contrast
        result.primary = read_primary(sweep.primary, sweep.factors) if sweep.primary else None
    if result.primary is not None:
        contrast = result.primary.contrast(sweep.arms)
        scores = {MIOU: (drawn.miou, True)} | {
            one.column.name: (scored, one.column.higher_is_better)
            for one, scored in zip(counted, drawn.others, strict=True)
        }
        known = {name.casefold(): scored for name, scored in scores.items()}
        scored = known.get(result.primary.score.casefold())
        if contrast is not None and scored is not None:
            (result.answer,) = estimate([contrast], *scored)
    result.correct()
    return result


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
        return metric.scores_of_sets(metric.true_classes_only(counts), names)[key][:, None]

    return _Counted(column, metric, places, score)


def _draw(
    runs: Sequence[FinishedRun], counted: Sequence[_Counted], draws: Draws, units: Units
) -> _Drawn:
    """Score all runs on the draws, one run after the other."""
    few, classes = min(draws.samples, FEW_SAMPLES), len(runs[0].class_names)
    # The draws of a run are next to each other in memory.
    miou = np.empty((len(runs), draws.samples, 1))
    others = [
        _Scored(np.empty((len(runs), 1)), np.empty((len(runs), few, 1)), np.full(1, units.count))
        for _ in counted
    ]
    iou = np.empty((len(runs), few, min(classes, _block_of_classes(runs, few))))
    with_class = np.zeros(classes, int)
    for place, run in enumerate(_track(runs, "drawing images")):
        images, counts = run.read()
        counts = units.sums(counts)
        with_class = units_with(true_class_iou(counts))
        scores = np.concatenate(list(draws.score(counts, _miou_and_class_iou)))
        miou[place] = scores[:, :1]
        iou[place] = scores[:few, 1 : 1 + iou.shape[-1]]
        for one, scored in zip(counted, others, strict=True):
            table = units.sums(images.dense(one.metric.name)[:, one.places])
            scored.whole[place] = one.score(table.sum(0)[None])[0]
            scored.drawn[place] = np.concatenate(list(draws.score(table, one.score, few)))
            parts = [one.score(table[i : i + ROWS]) for i in range(0, len(table), ROWS)]
            np.minimum(scored.units, units_with(np.concatenate(parts)), out=scored.units)
    whole = np.stack([true_mean_iou(run.total) for run in runs])[:, None]
    return _Drawn(
        _Scored(whole, miou.swapaxes(0, 1), np.full(1, units.count)),
        [one._replace(drawn=one.drawn.swapaxes(0, 1)) for one in others],
        iou.swapaxes(0, 1),
        with_class,
    )


def _class_blocks(
    runs: Sequence[FinishedRun], draws: Draws, drawn: np.ndarray, units: Units
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the IoU of all classes on draws in blocks (S, runs, k), and the first class of each.

    Args:
        runs: the runs, which are read again for each block but the first.
        draws: the draws.
        drawn: the first block.
        units: what is drawn.
    """
    few, block = len(drawn), drawn.shape[-1]
    yield 0, drawn
    for first in range(block, len(runs[0].class_names), block):
        chosen = slice(first, first + block)
        iou = np.empty((len(runs), few, len(range(len(runs[0].class_names))[chosen])))
        for place, run in enumerate(_track(runs, f"drawing images, class {first} and on")):
            counts = units.sums(run.class_counts[..., chosen])
            iou[place] = np.concatenate(list(draws.score(counts, true_class_iou, few)))
        yield first, iou.swapaxes(0, 1)


def _block_of_classes(runs: Sequence[FinishedRun], samples: int) -> int:
    return max(1, CLASS_CELLS // (len(runs) * samples))


def _track(runs: Sequence[FinishedRun], what: str) -> Iterable[FinishedRun]:
    console = Console(markup=False, emoji=False, stderr=True)
    return track(runs, what, console=console, transient=True)


def _miou_and_class_iou(sums: np.ndarray) -> np.ndarray:
    """Return the mIoU, then the IoU of each class (S, 1 + K)."""
    return np.concatenate([true_mean_iou(sums)[:, None], true_class_iou(sums)], -1)
