"""Writing of a report: report.html, and every figure as a png, complete or not at all."""

from pathlib import Path

from gald.comparison.report import filled
from gald.report.layout import Page
from gald.report.page import GetSource, build_page
from gald.report.stored import Stored
from gald.run.atomic import new_folder

TEMPLATE = Path(__file__).with_name("report.html.jinja")
HTML = "report.html"


def write_report(run: Stored, get_source: GetSource, to: Path, command: str) -> Page:
    """Write the report of a run to a folder, in place of the report that is there.

    Args:
        run: the results.
        get_source: as in `gald.report.page.build_page`.
        to: a folder that holds nothing but an earlier report, or does not exist.
        command: the command line, for the page.

    Raises:
        ValueError: the folder holds something else.
        OSError: the disk cannot be written; an earlier report is still there.
    """
    refuse_other_than_report(to)
    page = build_page(run, get_source, command)
    with new_folder(to, replaces=True) as scratch:
        for section in page.sections:
            for figure in (*section.figures, *section.pictures):
                (scratch / figure.file).write_bytes(figure.png)
        text = filled(TEMPLATE, {"page": page}, is_html=True)
        (scratch / HTML).write_text(text, "utf-8", "backslashreplace")
    return page


def refuse_other_than_report(to: Path) -> None:
    """Raise a ValueError unless a folder is missing, empty, or holds an earlier report alone."""
    remedy = "choose another folder with --to"
    if to.is_symlink() or to.is_file():
        raise ValueError(f"{to} is a {'link' if to.is_symlink() else 'file'}; {remedy}")
    inside = list(to.iterdir()) if to.exists() else []
    is_report = to / HTML in inside
    for path in inside:
        if not is_report or path.is_symlink() or not (path.name == HTML or path.suffix == ".png"):
            raise ValueError(f"{to} already holds {path.name}, which is of no report; {remedy}")
