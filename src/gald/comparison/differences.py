"""Every score's difference between two evaluations, with what it is worth."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import Progress

from gald.comparison.runs import JudgedRun
from gald.statistics import Difference, Score, class_iou, mean_iou, paired_bootstrap

Differences = dict[str, Difference]


def differences(a: JudgedRun, b: JudgedRun, samples: int, seed: int) -> Differences:
    """Bootstrap every score that both evaluations hold: key -> difference, B minus A."""
    found: Differences = {}
    with Progress(console=Console(stderr=True)) as progress:
        steps = progress.add_task("drawing images", total=2 * samples)

        def counted(sums: np.ndarray) -> np.ndarray:
            progress.advance(steps, len(sums))
            return pixel_scores(sums)

        keys = pixel_keys(a.class_names)
        found |= _by_key(keys, a.class_counts, b.class_counts, counted, samples, seed)
    return found


def pixel_keys(class_names: Sequence[str]) -> list[str]:
    """Names of what `pixel_scores` gives, as in results.json."""
    means = ["miou", "accuracy", "mean_accuracy", "fw_iou"]
    return means + [f"{score}/{name}" for score in ("iou", "accuracy") for name in class_names]


def pixel_scores(sums: np.ndarray) -> np.ndarray:
    """All scores (S, 4 + 2K) of summed hits, true and predicted pixels (S, 3, K).

    The same numbers as `gald.metrics.confusion` gives, thousands at a time.
    """
    hits, true = sums[:, 0], sums[:, 1]
    iou = class_iou(sums)
    with np.errstate(invalid="ignore"):
        right = hits / true
        pixels = true.sum(-1)
        means = [
            mean_iou(sums),
            hits.sum(-1) / pixels,
            np.nansum(right, -1) / (true > 0).sum(-1),
            np.nansum(iou * true, -1) / pixels,
        ]
    return np.concatenate([np.stack(means, -1), iou, right], -1)


def influence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much each image moves the mIoU difference (N,): with it minus without it.

    Args:
        a: class counts (N, 3, K) of the first network.
        b: of the second.
    """
    with_all = mean_iou(b.sum(0)) - mean_iou(a.sum(0))
    return with_all - (mean_iou(b.sum(0) - b) - mean_iou(a.sum(0) - a))


def lower_is_better(key: str) -> bool:
    """Whether a smaller number of this score is the better one."""
    return key.startswith("trimap/") or key == "ece"


def _by_key(
    keys: Sequence[str], a: np.ndarray, b: np.ndarray, score: Score, samples: int, seed: int
) -> Differences:
    whole = paired_bootstrap(a, b, score, samples, seed)
    return {key: Difference(*parts) for key, *parts in zip(keys, *whole, strict=True)}
