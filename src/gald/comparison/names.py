"""Short names of runs for reports."""

import re
from collections.abc import Sequence
from pathlib import Path

_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[_T-]\d\d[-:]\d\d[-:]\d\d.*"
)  # the default name of a run folder


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell folders apart.

    A folder named after the time of its run keeps the folder above, as `demo/2026-11-22_...`.
    """
    parts = [folder.absolute().parts[1:] or folder.absolute().parts for folder in folders]
    length = 2 if any(_TIME.fullmatch(part[-1]) for part in parts) else 1
    longest = max(map(len, parts), default=1)
    while length < longest and len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]
