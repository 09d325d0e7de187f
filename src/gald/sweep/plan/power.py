"""Power of a sweep: the difference that a number of seeds can detect."""

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
        deviation: standard deviation of one arm's score between seeds.
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


def power_sentence(arms: int, seeds: int, difference: float, deviation: float) -> str:
    """Describe whether a sweep can detect a difference; if not, as a warning with the remedy."""
    if arms < 2:
        return "seeds: one arm only, nothing to compare"
    reach, needed = detectable(arms, seeds, deviation), seeds_needed(arms, difference, deviation)
    about = f"{deviation:.3g} points between seeds, power 80%, Holm"
    setting = f"{arms} arms with {seeds} seed{'s' if seeds > 1 else ''}"
    if reach <= difference:
        return f"seeds: {setting} can detect {reach:.2f} points of mIoU or more ({about})"
    detected = "no difference" if seeds < 2 else f"only {reach:.2f} points of mIoU or more"
    advice = f"take {needed} seeds" if needed else "1000 seeds are not enough"
    return (
        f"warning: {setting} can detect {detected}, but --difference is {difference:g} ({about}); "
        f"{advice}. Formula: {FORMULA}; the variation from the choice of images is not included"
    )
