"""Reports with text, tables and figures, as Markdown, self-contained HTML and screen tables."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment
from rich.table import Table

from gald.run.markdown import as_markdown
from gald.run.provenance import commit

TEMPLATES = Path(__file__).parent
TONED = ("difference", "better")  # columns that colours underline
Cells = Sequence[Sequence[str]]


class Section(NamedTuple):
    """Section of a report: text, optional figure and optional table.

    Attributes:
        title: heading.
        words: text above the figure and the table.
        header: column names of the table; empty for no table.
        rows: cells of the table; the first column is text, the others are numbers.
        figure: file name of the figure and its png bytes, or None.
        tones: for each row, in which direction its columns in `TONED` are coloured: from -1 for
            the first to 1 for the second of two, 0 for none; empty for no colours.
    """

    title: str
    words: str
    header: Sequence[str] = ()
    rows: Cells = ()
    figure: tuple[str, bytes] | None = None
    tones: Sequence[float] = ()


def write_report(
    folder: Path,
    title: str,
    conclusion: str,
    about: str,
    sections: Sequence[Section],
    command: str = "",
) -> None:
    """Write `report.md` with figures as files, and `report.html` with figures embedded.

    Args:
        folder: where to write.
        title: heading.
        conclusion: the answer in one or two sentences.
        about: what is compared.
        sections: the rest, in order.
        command: the command line that writes the report, for the page.
    """
    for form in ("md", "html"):
        text = report_text(form, title, conclusion, about, sections, command)
        # A file name that is not UTF-8 has letters that cannot be written.
        (folder / f"report.{form}").write_text(text, "utf-8", "backslashreplace")
    for section in sections:
        if section.figure:
            (folder / section.figure[0]).write_bytes(section.figure[1])


def report_text(
    form: str,
    title: str,
    conclusion: str,
    about: str,
    sections: Sequence[Section],
    command: str = "",
) -> str:
    """Return a report as `md`, which names the files of figures, or `html`, which embeds them."""
    words: dict[str, Any] = {"title": title, "conclusion": conclusion, "about": about}
    words |= {"sections": sections, "facts": written(command), "toned": TONED}
    return filled(TEMPLATES / f"report.{form}.jinja", words, is_html=form == "html")


def written(command: str) -> list[tuple[str, str]]:
    """Return date, version and command of a report that is written now, with their names."""
    code = commit()
    facts = [
        ("report written", datetime.now().strftime("%Y-%m-%d %H:%M")),
        ("by", f"gald {version('gald')}" + (f", commit {code}" if code else "")),
        ("with", command),
    ]
    return [(name, value) for name, value in facts if value]


def filled(template: Path, words: Mapping[str, Any], is_html: bool) -> str:
    """Fill a template; in HTML every word is text.

    Args:
        template: file with the filters `base64` and `markdown`, and `style` for the style sheet.
        words: what the template shows.
        is_html: whether the template is of HTML.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=is_html
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    environment.filters["markdown"] = as_markdown
    style = (TEMPLATES / "report.css").read_text("utf-8")
    return environment.from_string(template.read_text("utf-8")).render(words, style=style)


def screen_table(section: Section, columns: Sequence[str]) -> Table:
    """Build a terminal table from some columns of a section's table."""
    places = [section.header.index(name) for name in columns]
    table = Table(title=section.title)
    for place in places:
        table.add_column(section.header[place], justify="right" if place else "left")
    for row in section.rows:
        table.add_row(*(row[place] for place in places))
    return table
