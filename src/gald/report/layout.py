"""What a report shows: its page, sections and figures."""

from collections.abc import Sequence
from typing import NamedTuple

from gald.report.tables import Table


class Figure(NamedTuple):
    """Figure of a report.

    Attributes:
        file: name of its png file.
        png: its bytes.
        alt: what it shows, for readers who cannot see it.
        caption: line below it; may be empty.
        broad: whether it needs the width of the page.
    """

    file: str
    png: bytes
    alt: str
    caption: str = ""
    broad: bool = False


class Section(NamedTuple):
    """Section of a report: charts, then pictures, tables and facts.

    `missing` has a sentence for each part that cannot be shown.
    """

    key: str
    title: str
    words: Sequence[str] = ()
    missing: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    pictures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    facts: Sequence[tuple[str, str]] = ()


class Page(NamedTuple):
    """Everything that a report shows."""

    title: str
    about: str
    conclusion: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    @property
    def missing(self) -> list[str]:
        """All sentences about what is missing."""
        return [sentence for section in self.sections for sentence in section.missing]
