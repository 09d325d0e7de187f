"""Reports with text, tables and figures, as Markdown, self-contained HTML and screen tables."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment
from rich.table import Table

from gald.run.markdown import as_markdown

TEMPLATES = Path(__file__).parent
Cells = Sequence[Sequence[str]]


class Section(NamedTuple):
    """Section of a report: text, optional figure and optional table.

    Attributes:
        title: heading.
        words: text above the figure and the table.
        header: column names of the table; empty for no table.
        rows: cells of the table; the first column is text, the others are numbers.
        figure: file name of the figure and its png bytes, or None.
    """

    title: str
    words: str
    header: Sequence[str] = ()
    rows: Cells = ()
    figure: tuple[str, bytes] | None = None


def write_report(
    folder: Path, title: str, conclusion: str, about: str, sections: Sequence[Section]
) -> None:
    """Write `report.md` with figures as files, and `report.html` with figures embedded."""
    for form in ("md", "html"):
        text = report_text(form, title, conclusion, about, sections)
        # A file name that is not UTF-8 has letters that cannot be written.
        (folder / f"report.{form}").write_text(text, "utf-8", "backslashreplace")
    for section in sections:
        if section.figure:
            (folder / section.figure[0]).write_bytes(section.figure[1])


def report_text(
    form: str, title: str, conclusion: str, about: str, sections: Sequence[Section]
) -> str:
    """Return a report as `md`, which names the files of figures, or `html`, which embeds them."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    environment.filters["markdown"] = as_markdown
    environment.autoescape = form == "html"
    template = environment.from_string((TEMPLATES / f"report.{form}.jinja").read_text("utf-8"))
    return template.render(title=title, conclusion=conclusion, about=about, sections=sections)


def screen_table(section: Section, columns: Sequence[str]) -> Table:
    """Build a terminal table from some columns of a section's table."""
    places = [section.header.index(name) for name in columns]
    table = Table(title=section.title)
    for place in places:
        table.add_column(section.header[place], justify="right" if place else "left")
    for row in section.rows:
        table.add_row(*(row[place] for place in places))
    return table
