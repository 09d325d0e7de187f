"""Docstrings are written to be read in the source; this makes Markdown of them for the site."""

import re
from typing import Any

import griffe

COMMANDS = re.compile(r"(?:^(?:gald|python -m) .+\n?)+", re.MULTILINE)
# A letter behind `<` would begin a tag; in docstrings it begins a dot product or a placeholder.
ANGLE = re.compile(r"(```.*?```|`[^`\n]*`)|<(?=[A-Za-z/])", re.DOTALL)
NAME = re.compile(r"`(gald\.[\w.]+)`")  # of a module or class, or of a file; then it is no link


class Readable(griffe.Extension):
    """Fences lines that are commands, shows `<` as what it is, and links what is named."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: D102
        if obj.docstring:
            text = COMMANDS.sub(r"```bash\n\g<0>\n```\n", obj.docstring.value + "\n")
            text = ANGLE.sub(lambda m: m[1] or "&lt;", text).rstrip()
            link = r'<autoref optional identifier="\1"><code>\1</code></autoref>'
            obj.docstring.value = NAME.sub(link, text)
