"""Ranges of options, declared once in the signature of what they build.

    def __init__(self, crop_size: Size, flip: Fraction = 0.5) -> None:

Type checkers see `Sequence[int]` and `float`; `gald.options.check` also sees the range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """Numbers that an option accepts; nan and infinite numbers are never accepted.

    Attributes:
        least: smallest number.
        above: every number must be larger than this one.
        most: largest number.
        below: every number must be smaller than this one.
        example: a good choice, for messages, where the default of the option is none.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    example: float | None = None

    def accepts(self, value: Any) -> bool:
        """Return whether a number is in the range."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        pairs = ((">=", self.least), (">", self.above), ("<=", self.most), ("<", self.below))
        return " and ".join(f"{sign} {bound}" for sign, bound in pairs if bound is not None)


@dataclass(frozen=True)
class Length:
    """Number of entries that a list accepts.

    Attributes:
        least: smallest number.
        most: largest number; None is any.
    """

    least: int
    most: int | None = None

    def accepts(self, value: Any) -> bool:
        """Return whether a list has as many entries."""
        return self.least <= len(value) and (self.most is None or len(value) <= self.most)

    def __str__(self) -> str:
        if self.least == self.most:
            return f"with {self.least} entries"
        most = "" if self.most is None else f" to {self.most}"
        return f"with {self.least}{most or ' or more'} entries"


# Whole numbers
Count = Annotated[int, Range(least=1)]
Whole = Annotated[int, Range(least=0)]
Seed = Annotated[int, Range(least=0, most=2**32 - 1, example=0)]  # the range of numpy
Width = Annotated[int, Range(least=1, most=65536, example=128)]  # channels of a feature map
Workers = Annotated[int, Range(least=0, most=1024)]  # processes
# Numbers
Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Fraction = Annotated[float, Range(least=0, most=1)]
Share = Annotated[float, Range(least=0, below=1)]  # all is too much
Part = Annotated[float, Range(above=0, below=1)]  # nothing is too little, too
# Texts and lists
Text = Annotated[str, Length(1)]
Side = Annotated[int, Range(least=1, example=512)]  # pixels
Counts = Annotated[Sequence[Count], Length(1)]
Positives = Annotated[Sequence[Positive], Length(1)]
Parts = Annotated[Sequence[Part], Length(1)]
Size = Annotated[Sequence[Side], Length(2, 2)]  # height and width in pixels
Scale = Annotated[float, Range(least=0.01, most=100)]  # of an image's height and width
