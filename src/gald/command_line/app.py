"""Command lines of the verbs that are not Hydra's: their options are arguments of a function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

Trust = Annotated[
    Sequence[str],
    Parameter(
        name="--trust",
        help="let the files name classes of this package of your own; repeat for more",
    ),
]


def new_app(name: str, help: str, **options: Any) -> App:
    """Create an app; its commands are functions, which import late what takes seconds.

    Args:
        name: the words that start it, such as `gald sweep`.
        help: what it does.
        options: further options of `cyclopts.App`.
    """
    return App(
        name,
        help=help,
        help_format="plaintext",
        version_flags=(),
        result_action="return_value",
        default_parameter=Parameter(negative=(), show_default=_shown, show_env_var=False),
        **options,
    )


def path(given: Path) -> Path:
    """Return a path of a command line as an absolute one, with ~ replaced by the home folder."""
    return given.expanduser().absolute()


def _shown(default: Any) -> Any:
    """Return a default as the help shows it; an empty one is not shown."""
    return default if default or (default == 0 and default is not False) else None
