"""How many seeds it takes to tell a difference from chance."""

from scipy.stats import t

LEVEL, POWER = 0.05, 0.8
FORMULA = "(t[1 - 0.05/2m, f] + t[0.8, f]) x sd x sqrt(2/seeds), f = m x (seeds - 1), m = arms - 1"


def detectable(arms: int, seeds: int, deviation: float) -> float:
    """The difference from the baseline that is found 4 times in 5, in the unit of the deviation.

    `FORMULA`, with t Student's quantiles: m arms are compared with the baseline, each at 0.05/m
    (Holm's first step), and the deviation is known from f degrees of freedom. What the choice of
    images adds is left out, so that more may be needed.

    Args:
        arms: ways to train, the baseline included; at least 2.
        seeds: of each arm; infinite for one, which leaves nothing to judge by.
        deviation: of one arm's score between seeds.
    """
    compared = arms - 1
    degrees_of_freedom = compared * (seeds - 1)
    if degrees_of_freedom < 1:
        return float("inf")
    quantiles = t.ppf(1 - LEVEL / 2 / compared, degrees_of_freedom) + t.ppf(
        POWER, degrees_of_freedom
    )
    return float(quantiles * deviation * (2 / seeds) ** 0.5)


def seeds_needed(arms: int, difference: float, deviation: float, most: int = 1000) -> int | None:
    """Fewest seeds with which `difference` can be told; None if `most` do not suffice."""
    fits = (n for n in range(2, most + 1) if detectable(arms, n, deviation) <= difference)
    return next(fits, None)


def power_sentence(arms: int, seeds: int, difference: float, deviation: float) -> str:
    """Say whether a sweep can tell a difference; a warning with the remedy where it cannot."""
    if arms < 2:
        return "seeds: one arm only, nothing to compare"
    reach, needed = detectable(arms, seeds, deviation), seeds_needed(arms, difference, deviation)
    about = f"{deviation:.3g} points between seeds, power 80%, Holm"
    setting = f"{arms} arms with {seeds} seed{'s' if seeds > 1 else ''}"
    if reach <= difference:
        return f"seeds: {setting} tell {reach:.2f} points of mIoU and more ({about})"
    known = "nothing" if seeds < 2 else f"{reach:.2f} points of mIoU and more"
    advice = f"take {needed} seeds" if needed else "1000 seeds would not do"
    return (
        f"warning: {setting} tell {known}, not {difference:g} ({about}); {advice}. Formula: "
        f"{FORMULA}; what the choice of images adds is left out"
    )
