"""Which weighted sums of arms answer a question: differences, main effects, interactions."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from gald.sweep.table.arms import Arm

HOW_TO_READ = (
    "A main effect is what a level gains over the baseline's level of its factor, averaged over "
    "the settings of the other factors; an interaction is what two levels gain together beyond the "
    "sum of what each gains alone: above 0 they help each other, below 0 they do the same work "
    "twice."
)


class Contrast(NamedTuple):
    """A weighted sum of arms.

    Attributes:
        name: what it is, for people.
        weights: of the arms (A,).
        settings: settings of the other factors that it is averaged over.
    """

    name: str
    weights: np.ndarray
    settings: int


def differences(arms: Sequence[Arm], baseline: int) -> list[Contrast]:
    """Every arm against the baseline, in the order of the arms."""
    found = []
    for place, arm in enumerate(arms):
        if place != baseline:
            weights = np.zeros(len(arms))
            weights[[baseline, place]] = -1, 1
            found.append(Contrast(arm.label, weights, 1))
    return found


def main_effects(
    arms: Sequence[Arm], factors: dict[str, list[str]], base: dict[str, str]
) -> list[Contrast]:
    """Every level of every factor against the factor's level in `base`, over all other settings.

    Settings count where both arms have runs; a level without any is left out.
    """
    return [
        question
        for key, levels in factors.items()
        for level in levels
        if level != base[key]
        and (question := _averaged(arms, {key: level}, {key: base[key]}, _name(key, level)))
    ]


def interactions(
    arms: Sequence[Arm], factors: dict[str, list[str]], base: dict[str, str]
) -> list[Contrast]:
    """Every pair of levels of two factors: together, less each alone, plus neither."""
    found = []
    for one, other in combinations(factors, 2):
        for a in factors[one]:
            for b in factors[other]:
                if a == base[one] or b == base[other]:
                    continue
                name = f"{_name(one, a)} : {_name(other, b)}"
                levels = {one: a, other: b}
                question = _averaged(arms, levels, {key: base[key] for key in levels}, name)
                if question:
                    found.append(question)
    return found


def _averaged(
    arms: Sequence[Arm], levels: dict[str, str], base: dict[str, str], name: str
) -> Contrast | None:
    """Differences of differences over the given levels, averaged over the other factors."""
    place = {tuple(sorted(arm.values.items())): i for i, arm in enumerate(arms)}
    total, settings = np.zeros(len(arms)), 0
    for arm in arms:
        if not levels.items() <= arm.values.items():
            continue
        corners = []
        for size in range(len(levels) + 1):
            for kept in combinations(levels, size):
                values = arm.values | base | {key: levels[key] for key in kept}
                corners.append((place.get(tuple(sorted(values.items()))), len(levels) - size))
        if all(corner is not None for corner, _ in corners):
            settings += 1
            for corner, lowered in corners:
                total[corner] += (-1) ** lowered
    return Contrast(name, total / settings, settings) if settings else None


def _name(key: str, level: str) -> str:
    return f"{key.replace('/', '.').rpartition('.')[2]}={level}"
