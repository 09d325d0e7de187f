"""LaTeX table for a paper, with booktabs."""

import re
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"{\char34}",  # active in some languages
    # after the end of a row [ would begin a length, and * an option
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a `table` environment, which needs the package booktabs; the first column is text."""
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escape(caption)}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "    \\toprule",
        f"    {_row(header)}",
        "    \\midrule",
        *(f"    {_row(row)}" for row in rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape text for LaTeX, in one line."""
    marked = "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
    marked = re.sub(r"-(?=-)", "-{}", marked)  # two hyphens would become a dash
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", marked)  # minus sign, not hyphen


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"
