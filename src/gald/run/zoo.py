"""The zoo: trained networks by name, each in a folder `zoo/NAME` of the repository.

`GALD_ZOO` names another such folder. An installed wheel has none.
"""

import difflib
import os
import re
from pathlib import Path

from gald.config import CONF_DIR

VARIABLE = "GALD_ZOO"
_SHIPPED = CONF_DIR.parent / "zoo"  # beside conf/ in a clone
ZOO_PREFIX = "zoo/"  # a name is accepted with the folder in front
_LIKE_A_NAME = re.compile(r"[\w-]+")


def zoo_folder() -> Path | None:
    """Return the folder of the zoo, or None if there is none.

    Raises:
        FileNotFoundError: `GALD_ZOO` names no folder.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        return _SHIPPED if _SHIPPED.is_dir() else None
    folder = Path(given).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{VARIABLE} is {given}, which is no folder; set it to the folder zoo of a clone of "
            "gald's repository, or unset it"
        )
    return folder


def zoo_names() -> list[str]:
    """Return the names of all networks of the zoo, sorted."""
    folder = zoo_folder()
    return sorted(path.parent.name for path in folder.glob("*/config.json")) if folder else []


def find_entry(given: str | Path) -> Path | None:
    """Return the folder of a network of the zoo, by `NAME` or `zoo/NAME`; None if it has none."""
    name, folder = _name(given), zoo_folder()
    return folder / name if folder is not None and name in zoo_names() else None


def find_folder(given: str | Path) -> Path:
    """Return an absolute path: of what exists under the given one, else of a network of the zoo.

    Raises:
        FileNotFoundError: the text has the form of a name, and there is nothing of that name.
    """
    path = Path(given).expanduser().absolute()
    if path.exists():
        return path
    entry = find_entry(given)
    if entry is None and _LIKE_A_NAME.fullmatch(_name(given)):
        remedy = advice(given, "give the path of a run")
        raise FileNotFoundError(f"there is no {given}; {remedy}")
    return entry or path


def advice(given: str | Path, otherwise: str) -> str:
    """Return the remedy for a name that nothing has.

    Args:
        given: the name.
        otherwise: the remedy if no name of the zoo is similar.
    """
    name = _name(given)
    if not _LIKE_A_NAME.fullmatch(name):
        return otherwise
    if zoo_folder() is None:
        return (
            f"{otherwise} (names are of networks in the zoo, a folder of gald's repository that is "
            f"not installed: clone the repository and set {VARIABLE}=CLONE/zoo)"
        )
    names = zoo_names()
    near = difflib.get_close_matches(name.lower(), names, n=1)
    listed = f"the zoo has {', '.join(names) or 'no network'}"
    return f"did you mean {near[0]}? ({listed})" if near else f"{otherwise} ({listed})"


def _name(given: str | Path) -> str:
    return str(given).removeprefix(ZOO_PREFIX).rstrip("/")
