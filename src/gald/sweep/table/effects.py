"""Contrasts between the arms of a sweep: differences, main effects, interactions."""

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np

from gald.sweep.table.arms import Arm

HOW_TO_READ = (
    "A main effect is the gain of a level over the baseline's level of the same factor, averaged "
    "over the settings of the other factors. An interaction is the gain of two levels together "
    "beyond the sum of their separate gains: above 0 they help each other, below 0 they do the "
    "same work twice."
)
GIVEN = (
    "The gain of a level over the baseline's level of the same factor, among the arms in which "
    "another factor has a given level. A claim about LD after a GA is 'ld=mask given ga!=none', "
    "and no main effect: that averages over the arms without a GA too. In points of mIoU."
)


class Contrast(NamedTuple):
    """Weighted sum of arms.

    Attributes:
        name: readable name.
        weights: weights of the arms (A,).
        settings: number of settings of the other factors that it is averaged over.
    """

    name: str
    weights: np.ndarray
    settings: int


def differences(arms: Sequence[Arm], baseline: int) -> list[Contrast]:
    """List the contrast of every arm against the baseline, in the order of the arms."""
    contrasts = []
    for index, arm in enumerate(arms):
        if index != baseline:
            weights = np.zeros(len(arms))
            weights[[baseline, index]] = -1, 1
            contrasts.append(Contrast(arm.label, weights, 1))
    return contrasts


def main_effects(
    arms: Sequence[Arm], factors: dict[str, list[str]], base: dict[str, str]
) -> list[Contrast]:
    """List the contrast of every level of every factor against the factor's level in `base`.

    It is averaged over those settings of the other factors for which both arms have runs. A level
    without any such setting is omitted.
    """
    return [
        effect
        for key, levels in factors.items()
        for level in levels
        if level != base[key]
        and (effect := averaged(arms, {key: level}, {key: base[key]}, _name(key, level)))
    ]


def given_levels(
    arms: Sequence[Arm], factors: dict[str, list[str]], base: dict[str, str]
) -> list[Contrast]:
    """List the effect of every level where another factor has a level, or any but its base level.

    Those that equal a difference from the baseline, a main effect or one another are left out: with
    two levels "given ga!=none" is "given ga=psp".
    """
    known = [*main_effects(arms, factors, base)]
    index = next((i for i, arm in enumerate(arms) if arm.values == base), None)
    known += [] if index is None else differences(arms, index)
    found: list[Contrast] = []
    for key, other in permutations(factors, 2):
        levels = factors[other]
        for level in factors[key]:
            if level == base[key]:
                continue
            conditions = [(f"{_name(other, base[other], '!=')}", set(levels) - {base[other]})]
            conditions += [(_name(other, one), {one}) for one in levels]
            for words, allowed in conditions:
                effect = averaged(
                    arms,
                    {key: level},
                    {key: base[key]},
                    f"{_name(key, level)} given {words}",
                    lambda values, other=other, allowed=allowed: values[other] in allowed,
                )
                if effect and not any(
                    np.allclose(effect.weights, one.weights) for one in (*known, *found)
                ):
                    found.append(effect)
    return found


def interactions(
    arms: Sequence[Arm], factors: dict[str, list[str]], base: dict[str, str]
) -> list[Contrast]:
    """List the interaction of every two levels of two factors.

    It is the score of both levels together, minus that of each alone, plus that of neither.

    It is averaged over the settings of the other factors, as in `main_effects`.
    """
    contrasts = []
    for one, other in combinations(factors, 2):
        for a in factors[one]:
            for b in factors[other]:
                if a == base[one] or b == base[other]:
                    continue
                name = f"{_name(one, a)} : {_name(other, b)}"
                levels = {one: a, other: b}
                effect = averaged(arms, levels, {key: base[key] for key in levels}, name)
                if effect:
                    contrasts.append(effect)
    return contrasts


def averaged(
    arms: Sequence[Arm],
    levels: dict[str, str],
    base: dict[str, str],
    name: str,
    chosen: Callable[[dict[str, str]], bool] = lambda values: True,
) -> Contrast | None:
    """Build a difference of differences over the levels, averaged over the other factors.

    None if there is no setting of the other factors with all its arms.

    Args:
        arms: arms of the sweep.
        levels: the levels, by factor.
        base: the level of each of these factors that they are compared with.
        name: name of the contrast.
        chosen: whether an arm's values belong to a setting that is averaged.
    """
    index = {tuple(sorted(arm.values.items())): i for i, arm in enumerate(arms)}
    total, settings = np.zeros(len(arms)), 0
    for arm in arms:
        if not levels.items() <= arm.values.items() or not chosen(arm.values):
            continue
        corners = []
        for size in range(len(levels) + 1):
            for kept in combinations(levels, size):
                values = arm.values | base | {key: levels[key] for key in kept}
                corners.append((index.get(tuple(sorted(values.items()))), len(levels) - size))
        if all(corner is not None for corner, _ in corners):
            settings += 1
            for corner, lowered in corners:
                total[corner] += (-1) ** lowered
    return Contrast(name, total / settings, settings) if settings else None


def _name(key: str, level: str, relation: str = "=") -> str:
    return f"{key.replace('/', '.').rpartition('.')[2]}{relation}{level}"
