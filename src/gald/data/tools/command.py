"""`gald data ACTION NAME`: download or import a dataset, check it, count its classes, show it."""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gald.cli import fail
from gald.command_line.app import new_app
from gald.config import compose, options_of
from gald.data.tools.importing.command import main as importing
from gald.run.preemption import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Generator

    from omegaconf import DictConfig

Name = Annotated[str, Parameter(help=options_of("data"))]
app = new_app("data", "Prepare, verify, count and show a dataset, or import annotations.")
app.command(importing, name="import")


@app.command
def prepare(name: Name = "", /, *overrides: str) -> None:
    """Download a dataset, or print how to get it.

    Args:
        name: option of the config group data
        overrides: any key of gald train, such as data.root=FOLDER
    """
    from hydra.utils import get_class

    cfg = _config("prepare", name, overrides)
    if "root" not in cfg.data:
        print(f"{_plain(name)} is drawn on the fly; there is nothing to prepare")
        return
    from gald.data.tools.prepare import prepare

    # only the class: creating some modules reads the dataset, which does not exist yet
    module_class: Any = get_class(cfg.data._target_)
    with _interruptible("prepare", name):
        prepare(module_class.dataset_class, _plain(name), Path(cfg.data.root))


@app.command
def verify(
    name: Name = "",
    /,
    *overrides: str,
    split: str | None = None,
    subset: bool = False,
    output: Path | None = None,
) -> int:
    """Read every file of a dataset and list all problems; the exit code is 1 if there are any.

    Args:
        name: option of the config group data
        overrides: any key of gald train, such as data.root=FOLDER
        split: one split, or several as train+val (default: all)
        subset: accept any number of images
        output: save the report in this json file
    """
    output = output and output.expanduser()
    data = _data("verify", name, overrides, output)
    from gald.data.tools.verify import verify

    with _interruptible("verify", name):
        return verify(data, _plain(name), split, subset, output)


@app.command
def stats(name: Name = "", /, *overrides: str, split: str = "train") -> None:
    """Print the frequency of each class, and weights that balance the loss.

    Args:
        name: option of the config group data
        overrides: any key of gald train, such as data.root=FOLDER
        split: train, val, ...
    """
    data = _data("stats", name, overrides)
    from gald.data.tools.class_report import print_classes

    with _interruptible("stats", name):
        print_classes(data, _plain(name), split)


@app.command
def browse(
    name: Name = "",
    /,
    *overrides: str,
    split: str = "train",
    count: int = 24,
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    output: Path | None = None,
    augment: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw one figure of many images with their labels.

    Args:
        name: option of the config group data
        overrides: any key of gald train, such as data.root=FOLDER
        split: train, val, ...
        count: number of images
        class_name: images with most of this class
        output: path of the figure, a png
        augment: the first crops of a training, as with the same options of gald train
    """
    for word in overrides:
        if word.startswith("augment=") and not augment:
            raise ValueError(f"{word} changes only the crops of a training; add --augment")
    output = output and output.expanduser()
    data = _data("browse", name, overrides, output)
    from gald.data.tools.browse import browse

    with _interruptible("browse", name):
        browse(data, _plain(name), split, count, class_name, output, augment)


def _plain(name: str) -> str:
    return name.removeprefix("data=")  # as in gald train


@contextmanager
def _interruptible(action: str, name: str) -> "Generator[None]":
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted; repeat gald data {action} {_plain(name)} to finish", INTERRUPTED)


def _config(action: str, name: str, overrides: Sequence[str]) -> "DictConfig":
    """Compose the config of a dataset and check it."""
    options = options_of("data")
    if _plain(name) not in options.split(", "):
        problem = f"gald data {action} needs a NAME"
        if name:
            problem = f"data has no option {_plain(name)!r}"
        raise ValueError(f"{problem}; choose one of {options}")
    for override in overrides:
        if "=" not in override:
            raise ValueError(
                f"{override!r} is not key=value; write data.KEY=VALUE, or see gald data {action} "
                "--help"
            )
    from gald.options.check import check_config
    from gald.options.roots import Train

    cfg = compose("train", [f"data={_plain(name)}", *overrides])
    check_config(cfg, Train)
    return cfg


def _data(action: str, name: str, overrides: Sequence[str], output: Path | None = None) -> Any:
    """Build the data module of a dataset."""
    cfg = _config(action, name, overrides)
    from gald.run.building import build_own
    from gald.run.new_folders import refuse_unwritable

    if output is not None:
        refuse_unwritable(output.absolute().parent, "--output")
    with _interruptible(action, name):
        return build_own(cfg.data)
