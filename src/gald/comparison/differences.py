"""Bootstrapped differences of all scores between two evaluations."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from gald.comparison.bootstrap import (
    Difference,
    Score,
    paired_bootstrap,
    true_class_iou,
    true_mean_iou,
)
from gald.comparison.runs import EvaluatedRun
from gald.comparison.units import Units
from gald.metrics.base import CountMetric

Differences = dict[str, Difference]


def differences(
    a: EvaluatedRun, b: EvaluatedRun, units: Units, samples: int, seed: int
) -> Differences:
    """Bootstrap every score that both evaluations have: key -> difference, B minus A.

    The same units are drawn for all scores.
    """
    counts = a.class_counts, b.class_counts
    result: Differences = {}
    with Progress(console=Console(markup=False, emoji=False, stderr=True)) as progress:

        def resample(
            keys: Sequence[str], pair: Sequence[np.ndarray], score: Score, what: str
        ) -> None:
            steps = progress.add_task(escape(what), total=2 * (samples + 1 + units.count))
            pair = [units.sums(table) for table in pair]

            def score_with_progress(sums: np.ndarray) -> np.ndarray:
                progress.advance(steps, len(sums))
                return score(sums)

            all_scores = paired_bootstrap(*pair, score_with_progress, samples, seed)
            result.update((key, all_scores.of(place)) for place, key in enumerate(keys))

        resample(pixel_keys(a.class_names), counts, pixel_scores, "pixels")
        for metric in a.metrics:
            name = metric.name
            if name == "confusion" or name not in a.images.metrics or name not in b.images.metrics:
                continue
            keys = metric.score_keys(a.class_names)
            score = scores_by_key(metric, a.class_names, keys)
            resample(keys, [run.images.dense(name) for run in (a, b)], score, name)
    return result


def pixel_keys(class_names: Sequence[str]) -> list[str]:
    """Return the keys of the columns of `pixel_scores`, as in results.json."""
    means = ["miou", "accuracy", "mean_accuracy", "fw_iou"]
    return means + [f"{score}/{name}" for score in ("iou", "accuracy") for name in class_names]


def pixel_scores(sums: np.ndarray) -> np.ndarray:
    """Compute all scores (S, 4 + 2K) from summed hits, true and predicted pixels (S, 3, K).

    The numbers equal those of `gald.metrics.confusion`, for thousands of samples at once, but for
    classes that are predicted and have no true pixel: they count in no mean here.
    """
    hits, true = sums[:, 0], sums[:, 1]
    iou = true_class_iou(sums)
    with np.errstate(invalid="ignore"):
        right = hits / true
        pixels = true.sum(-1)
        means = [
            true_mean_iou(sums),
            hits.sum(-1) / pixels,
            np.nansum(right, -1) / (true > 0).sum(-1),
            np.nansum(iou * true, -1) / pixels,
        ]
    return np.concatenate([np.stack(means, -1), iou, right], -1)


def scores_by_key(metric: CountMetric, class_names: Sequence[str], keys: Sequence[str]) -> Score:
    """Wrap the scores of a metric as a function of summed vectors (S, width) to (S, keys)."""

    def score(sums: np.ndarray) -> np.ndarray:
        scores = metric.scores_of_sets(metric.true_classes_only(sums), class_names)
        return np.stack([scores[key] for key in keys], -1)

    return score


def influence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute how much each image changes the mIoU difference (N,): with it minus without it.

    Args:
        a: class counts (N, 3, K) of the first network.
        b: class counts (N, 3, K) of the second network.
    """
    with_all = true_mean_iou(b.sum(0)) - true_mean_iou(a.sum(0))
    return with_all - (true_mean_iou(b.sum(0) - b) - true_mean_iou(a.sum(0) - a))
