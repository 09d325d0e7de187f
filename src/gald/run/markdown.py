"""Text of others in Markdown: names of classes, runs, files and arms."""

import re

# A star at the end of a text cannot begin anything.
_MARKUP = re.compile(r"[&<>\\`\[\]|$~{}]|\*(?!\Z)|(?<!\w)_|_(?!\w)")


def as_markdown(text: str) -> str:
    """Return one line of Markdown that reads as the text: no markup, link, maths or table cell.

    Marks become numeric entities, which every reader of Markdown shows as the mark. Line ends and
    other white space become spaces.
    """
    return _MARKUP.sub(_escaped, " ".join(text.split()))


def _escaped(mark: re.Match[str]) -> str:
    # The end of a cell is the one mark that readers of tables look for before they read entities.
    return r"\|" if mark[0] == "|" else f"&#{ord(mark[0])};"
