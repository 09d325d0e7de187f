"""What the name of a class may be: any text that a screen and a file can show."""

import unicodedata

LONGEST = 1000  # characters
_SPACES = "\t\n"


def unusable(name: str) -> str | None:
    """Return what a name has that no table, file or screen can show; None for a usable name.

    Control characters move the cursor of a terminal or end a file's text, and surrogates cannot be
    written. Line ends and tabs are shown as spaces where a table needs one line.
    """
    if len(name) > LONGEST:
        return f"{len(name)} characters, of at most {LONGEST}"
    for letter in name:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in _SPACES:
            return f"the character {letter!a}"
    return None
