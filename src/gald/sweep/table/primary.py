"""The primary contrast of a sweep: the one question that it answers, fixed before it runs.

`hydra.sweeper.primary` states it in words, for example

    ld=mask given ga != none on boundary F within 0.5

| part | meaning |
|---|---|
| `ld=mask` | the gain of mask over the base level: `none`, or the first if there is no none |
| `ld=mask vs const` | the gain of mask over const |
| `ld` | the mean gain of all levels but the base level |
| `given ga != none` | only arms with a GA; `=` for one level, `and` between conditions |
| `on boundary F` | the score, by its name in the table; mIoU if left out |
| `within 0.5` | the difference in points that counts as none, for a test of equivalence |

It is averaged over the settings of all other factors.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gald.run.building import build_own
from gald.sweep.cells import split_overrides
from gald.sweep.table.arms import SEED, Arm, label, resolve, usual_level
from gald.sweep.table.effects import Contrast, averaged

KEY = "hydra.sweeper.primary"
EXAMPLE = "ld=mask given ga != none on mIoU"
MIOU = "mIoU"
LONGEST = 300  # letters
NONE = f"or go on without it, with {KEY}=null"
_GRAMMAR = re.compile(
    r"(?P<factor>[^\s=!]+)(\s*=\s*(?P<level>\S+)(\s+vs\s+(?P<against>\S+))?)?"
    r"(\s+given\s+(?P<given>.+?))?(\s+on\s+(?P<score>.+?))?(\s+within\s+(?P<margin>\S+))?"
)
_CONDITION = re.compile(r"(?P<factor>[^\s=!]+)\s*(?P<relation>!?=)\s*(?P<level>\S+)")


class Condition(NamedTuple):
    """Condition on the level of another factor: `=` or `!=`."""

    factor: str
    relation: str
    level: str

    def holds(self, values: Mapping[str, str]) -> bool:
        """Return whether an arm with these values meets it."""
        return (values[self.factor] == self.level) == (self.relation == "=")


class Primary(NamedTuple):
    """A primary contrast; all its words belong to a sweep.

    Attributes:
        text: the words as declared.
        factor: key of the factor.
        levels: levels that are averaged.
        against: level that they are compared with.
        given: conditions on other factors.
        score: name of the score.
        margin: difference in points that counts as none, or None.
    """

    text: str
    factor: str
    levels: tuple[str, ...]
    against: str
    given: tuple[Condition, ...]
    score: str
    margin: float | None

    def contrast(self, arms: Sequence[Arm]) -> Contrast | None:
        """Build the contrast of arms, averaged over the settings that have all of them.

        None if no setting has.
        """
        found = [
            effect
            for level in self.levels
            if (
                effect := averaged(
                    arms,
                    {self.factor: level},
                    {self.factor: self.against},
                    self.text,
                    lambda values: all(one.holds(values) for one in self.given),
                )
            )
        ]
        if not found:
            return None
        weights = np.mean([one.weights for one in found], axis=0)
        return Contrast(self.text, weights, sum(one.settings for one in found))


def read_primary(
    text: str, factors: Mapping[str, Sequence[str]], scores: Sequence[str] | None = None
) -> Primary:
    """Read the words of a primary contrast.

    Args:
        text: the words.
        factors: values of each factor, without the seed.
        scores: names of the scores that can be tested; None accepts any.

    Raises:
        ValueError: a word is unknown; the message lists those that are available.
    """
    match = _GRAMMAR.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if match is None:
        raise ValueError(
            f"{KEY} is {text[:LONGEST]!r}, which is no contrast; write FACTOR=LEVEL [vs LEVEL] "
            f"[given FACTOR != LEVEL] [on SCORE] [within POINTS], as {EXAMPLE!r}"
        )
    key, level, against = match["factor"], match["level"], match["against"]
    factor = _factor(text, key, factors)
    levels = factors[factor]
    base = _level(text, factor, against, levels) if against else usual_level(levels)
    chosen = [_level(text, factor, level, levels)] if level else [x for x in levels if x != base]
    if chosen == [base]:
        raise ValueError(f"{KEY} is {text!r}, which compares {factor}={base} with itself; name two")
    given = _conditions(text, match["given"], factor, factors)
    score = match["score"] or MIOU
    known = {name.casefold(): name for name in scores or (MIOU, score)}
    if scores and score.casefold() not in known:
        raise ValueError(
            f"{KEY} is {text!r}, but there is no score {score!r}; choose one of {', '.join(scores)}"
        )
    return Primary(
        text, factor, tuple(chosen), base, given, known[score.casefold()], _margin(text, match)
    )


def check_primary(
    text: str,
    cells: Sequence[Sequence[str]],
    metrics: Any,
    planned: Sequence[Sequence[str]] = (),
) -> Primary:
    """Check a primary contrast against the cells of a sweep, before any of them is trained.

    Args:
        text: its words.
        cells: Hydra overrides of each cell that the sweep has.
        metrics: config of the metrics, as gald train builds it.
        planned: overrides of cells that the sweep may still get.

    Raises:
        ValueError: a word is unknown, no two arms differ in the factor under its conditions, or
            the contrast compares other levels as long as planned cells are missing.
    """
    factors = _varied([*cells, *planned])
    primary = read_primary(text, factors, score_names(metrics))
    overrides = [split_overrides(cell) for cell in [*cells, *planned]]
    arms = {tuple(v.get(key, "default") for key in factors): None for v in overrides}
    named = [dict(zip(factors, values, strict=True)) for values in arms]
    if primary.contrast([Arm(values, label(values)) for values in named]) is None:
        raise ValueError(
            f"{KEY} is {text!r}, but no two of the {len(named)} arms differ in {primary.factor} "
            f"only and meet its conditions; declare both arms, {NONE}"
        )
    try:
        now = read_primary(text, _varied(cells))
    except ValueError:  # the table has no answer yet
        return primary
    if (now.levels, now.against) != (primary.levels, primary.against):
        raise ValueError(
            f"{KEY} is {text!r}, which compares {', '.join(primary.levels)} with "
            f"{primary.against}, but {', '.join(now.levels)} with {now.against} as long as the "
            "sweep lacks levels; name all of them in this command: "
            f"{primary.factor}={','.join(factors[primary.factor])}"
        )
    return primary


def _varied(cells: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Return the levels of each key that varies between cells, without the seed."""
    levels: dict[str, dict[str, None]] = {}
    for cell in cells:
        for key, value in split_overrides(cell).items():
            levels.setdefault(key, {})[value] = None
    return {key: list(seen) for key, seen in levels.items() if len(seen) > 1 and key != SEED}


def score_names(metrics: Any) -> list[str]:
    """Return the names of the scores that the metrics of a config have, for a primary contrast."""
    names = ["first class", "second class"]
    # The categories of the confusion matrix would name classes of the data.
    parts = [part for key, part in metrics.items() if part is not None and key != "confusion"]
    built = [build_own(part)(num_classes=len(names)) for part in parts]
    return [MIOU, *(one.label for one in built if one.headline(one.score_keys(names), names))]


def _factor(text: str, word: str, factors: Mapping[str, Sequence[str]]) -> str:
    key = resolve(word, factors)
    if key is None:
        known = ", ".join(factors) or "none: declare a key with two values"
        raise ValueError(
            f"{KEY} is {text!r}, but {word!r} is no factor; name one of them ({known}), {NONE}"
        )
    return key


def _level(text: str, factor: str, word: str, levels: Sequence[str]) -> str:
    if word not in levels:
        raise ValueError(
            f"{KEY} is {text!r}, but {factor} has no value {word!r}; its values are "
            f"{', '.join(levels)}"
        )
    return word


def _conditions(
    text: str, given: str | None, factor: str, factors: Mapping[str, Sequence[str]]
) -> tuple[Condition, ...]:
    conditions = []
    for words in re.split(r"\s+and\s+", given) if given else ():
        match = _CONDITION.fullmatch(words.strip())
        if match is None:
            raise ValueError(
                f"{KEY} is {text!r}, and {words!r} is no condition; write FACTOR = LEVEL or "
                "FACTOR != LEVEL, joined by 'and'"
            )
        key = _factor(text, match["factor"], factors)
        if key == factor:
            raise ValueError(
                f"{KEY} is {text!r}, with a condition on {key}, the factor itself; name levels as "
                f"{key}=LEVEL vs LEVEL"
            )
        level = _level(text, key, match["level"], factors[key])
        conditions.append(Condition(key, match["relation"], level))
    return tuple(conditions)


def _margin(text: str, match: re.Match[str]) -> float | None:
    if match["margin"] is None:
        return None
    try:
        margin = float(match["margin"])
    except ValueError:
        margin = np.nan
    if not 0 < margin < np.inf:
        raise ValueError(
            f"{KEY} is {text!r}, where {match['margin']} is no margin; write a number of points "
            "above 0, as within 0.5"
        )
    return margin
