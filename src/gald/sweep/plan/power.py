"""Power of a sweep: the difference that a number of seeds can detect.

The deviation between seeds is the paired one: what remains of it once runs of the same seed are
compared with each other, as a table does. On CamVid it is 0.54 points where that of one arm is
0.83, because seeds move all arms together.
"""

from typing import NamedTuple

import numpy as np

ASSUMED = 0.54  # points of mIoU: experiment=ablation_camvid, 9 arms with 3 seeds

LEVEL, POWER = 0.05, 0.8
FORMULA = "(t[1 - 0.05/2m, f] + t[0.8, f]) x sd x sqrt(2/seeds), f = m x (seeds - 1), m = arms - 1"


def detectable(arms: int, seeds: int, deviation: float) -> float:
    """Return the difference from the baseline that is detected with 80% power.

    The unit is that of the deviation. The equation is `FORMULA`, where t is a quantile of Student's
    t distribution: m arms are compared with the baseline, each at 0.05/m (Holm's first step), and
    the deviation is estimated with f degrees of freedom. The variation from the choice of images is
    not included, so more seeds may be needed.

    Args:
        arms: number of ways to train, the baseline included; at least 2.
        seeds: number of seeds per arm. The result is infinite for one seed, which gives no
            estimate of the noise.
        deviation: paired standard deviation of a score between seeds.
    """
    compared = arms - 1
    degrees_of_freedom = compared * (seeds - 1)
    if degrees_of_freedom < 1:
        return float("inf")
    from scipy.stats import t  # takes a second

    quantiles = t.ppf(1 - LEVEL / 2 / compared, degrees_of_freedom) + t.ppf(
        POWER, degrees_of_freedom
    )
    return float(quantiles * deviation * (2 / seeds) ** 0.5)


def seeds_needed(arms: int, difference: float, deviation: float, most: int = 1000) -> int | None:
    """Return the fewest seeds that detect `difference`; None if `most` seeds are not enough."""
    fits = (n for n in range(2, most + 1) if detectable(arms, n, deviation) <= difference)
    return next(fits, None)


def detectable_by_contrast(arms: int, seeds: int, deviation: float, weights: np.ndarray) -> float:
    """Return the size of one contrast that is detected with 80% power at 5%, without correction.

    It is `(t[0.975, f] + t[0.8, f]) x sd x sqrt(sum of squared weights / seeds)`, with
    `f = (arms - 1) x (seeds - 1)`.

    Args:
        arms: number of ways to train.
        seeds: number of seeds per arm; the result is infinite for one.
        deviation: paired standard deviation of the score between seeds.
        weights: weights of the arms (A,).
    """
    degrees_of_freedom = (arms - 1) * (seeds - 1)
    if degrees_of_freedom < 1:
        return float("inf")
    from scipy.stats import t  # takes a second

    quantiles = t.ppf(1 - LEVEL / 2, degrees_of_freedom) + t.ppf(POWER, degrees_of_freedom)
    return float(quantiles * deviation * ((weights**2).sum() / seeds) ** 0.5)


class Assumption(NamedTuple):
    """Deviation between seeds that a plan reckons with.

    Attributes:
        points: the paired deviation, in points of mIoU.
        source: where it comes from, in words.
    """

    points: float
    source: str

    @classmethod
    def default(cls) -> "Assumption":
        """Return the deviation for a plan without a pilot; its words say that it is assumed."""
        return cls(
            ASSUMED,
            "assumed, from experiment=ablation_camvid; a pilot of two arms with three seeds "
            "measures yours: --sd FOLDER",
        )

    @classmethod
    def measured(cls, points: float, freedom: int, where: str) -> "Assumption":
        """Return a deviation that a pilot has measured, with its own 95% interval."""
        from scipy.special import chdtri  # takes a third of a second

        low, high = (points * (freedom / chdtri(freedom, q)) ** 0.5 for q in (0.025, 0.975))
        return cls(
            points,
            f"measured in {where} with {freedom} degrees of freedom, 95% interval "
            f"{low:.2f} to {high:.2f}",
        )

    @property
    def words(self) -> str:
        """The deviation and its source, for the end of a sentence."""
        return f"{self.points:.3g} points between paired seeds, {self.source}"


def power_sentence(arms: int, seeds: int, difference: float, assumed: Assumption) -> str:
    """Describe whether a sweep can detect a difference; if not, as a warning with the remedy."""
    if arms < 2:
        return "seeds: one arm only, nothing to compare"
    deviation = assumed.points
    reach, needed = detectable(arms, seeds, deviation), seeds_needed(arms, difference, deviation)
    about = f"{assumed.words}; power 80%, Holm"
    setting = f"{arms} arms with {seeds} seed{'s' if seeds > 1 else ''}"
    if reach <= difference:
        return f"seeds: {setting} can detect {reach:.2f} points of mIoU or more ({about})"
    detected = "no difference" if seeds < 2 else f"only {reach:.2f} points of mIoU or more"
    advice = f"take {needed} seeds" if needed else "1000 seeds are not enough"
    return (
        f"warning: {setting} can detect {detected}, but --difference is {difference:g} ({about}); "
        f"{advice}. Formula: {FORMULA}; the variation from the choice of images is not included"
    )
