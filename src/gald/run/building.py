"""The one place where a config becomes objects.

A config comes from one of two sides. What a user composes, on a command line and in YAML files of
their own, is code: `build_own` calls what it names. What a file holds (a checkpoint, `config.json`,
`config.yaml`, the receipt in `results.json`) may be a stranger's: `build` takes plain data
(`gald.run.plain`), only options of the slot, and arguments that fit their signatures
(`gald.run.slots`), and checks all of it before it builds any of it.

What a path in a file may do:

| key | use |
|---|---|
| `model.backbone.weights`, `model.host.weights` | none: the weights are in the file |
| `data.root`, `data.classes` and the other paths of `data` | read, as the data to evaluate |
| `data.cache_dir` | none: the cache is the user's own, `$GALD_CACHE` or `~/.cache/gald` |
| `data.train_transform` | none: a file is evaluated, never trained |
| `checkpoint` of a receipt | read, as weights |
| all others, such as `output_dir` and those of loggers and callbacks | none |

Loss, optimizer, scheduler, task, trainer, loggers and callbacks of a file are never built. A path
on another machine, such as `//server/share`, is refused: opening it would connect to that machine.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from gald.run.plain import RefusedError, join, plain_data, shown
from gald.run.slots import Part, check_part
from gald.run.trunk import TRUNKS

if TYPE_CHECKING:
    from gald.run.checkpoint import Checkpoint

MOST_WORKERS = 256  # loader processes that a file may ask for


def build_own(config: Any, **given: Any) -> Any:
    """Build what the user composes; its `_target_` may be any code.

    Args:
        config: a node of a composed config, never one that a file holds.
        given: further arguments of the object.
    """
    return instantiate(config, **given)


def build(
    slot: str,
    config: Any,
    file: str | Path,
    trust: Sequence[str] = (),
    key: str | None = None,
    **given: Any,
) -> Any:
    """Build an object that a file describes.

    Args:
        slot: one of `gald.run.slots.SLOTS`.
        config: its config, as the file holds it.
        file: the file, for messages.
        trust: packages with classes that are allowed too.
        key: place of the config in the file, for messages; None is the name of the slot.
        given: arguments that no file may set.

    Raises:
        ValueError: the config is refused, see `gald.run.slots.check_part`, or a constructor
            refuses its arguments.
        FileNotFoundError: there is no data at the paths of the config.
    """
    part = check_part(
        slot, own_paths(slot, plain_data(config, file, key or slot), file), file, trust, key
    )
    return _construct(part, str(file), given)


def check(slot: str, config: Any, file: str | Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Check a config as `build` does, and return it with paths of the user; nothing is built."""
    checked = own_paths(slot, plain_data(config, file, slot), file)
    check_part(slot, checked, file, trust)
    return checked


def check_metrics(config: Any, file: str | Path, trust: Sequence[str] = ()) -> dict[str, Part]:
    """Check the metrics that a file names, by name; nothing is built."""
    plain = plain_data({} if config is None else config, file, "metrics")
    if not isinstance(plain, dict):
        raise ValueError(
            f"{file} has {shown(plain)} as metrics instead of a table; evaluate again to get one"
        )
    return {
        name: check_part("metric", part, file, trust, join("metrics", name))
        for name, part in plain.items()
    }


def build_metrics(
    config: Any, num_classes: int, file: str | Path, trust: Sequence[str] = ()
) -> list[Any]:
    """Build the metrics that a file names; all are checked before the first is built."""
    parts = check_metrics(config, file, trust)
    return [_construct(part, str(file), {"num_classes": num_classes}) for part in parts.values()]


def check_network(checkpoint: "Checkpoint", trust: Sequence[str] = ()) -> None:
    """Refuse a checkpoint with weights that do not fit its config, before memory is taken for them.

    Raises:
        ValueError: the config is refused, or another network's weights are in the file.
    """
    import torch  # late, because metrics and data can be built without it

    from gald.run.checkpoint import refuse_other_weights

    with torch.device("meta"):  # only names and shapes are needed
        model = build(
            "model",
            checkpoint.config.get("model"),
            checkpoint.config_file,
            trust,
            num_classes=len(checkpoint.class_names),
        )
    refuse_other_weights(model, checkpoint)


def own_paths(slot: str, config: Any, file: str | Path) -> Any:
    """Copy a config with what a file may not decide replaced; see the table of this module."""
    if not isinstance(config, dict):
        return config
    if slot == "model":
        return config | {k: own_paths(k, v, file) for k, v in config.items() if k in TRUNKS}
    if slot in TRUNKS and "weights" in config:
        return config | {"weights": None}
    if slot != "data":
        return config
    for key, value in config.items():
        refuse_other_machine(value, join(slot, key), file)
    workers = config.get("num_workers")
    if isinstance(workers, int) and workers > MOST_WORKERS:
        raise RefusedError(
            f"{file} would start {workers} processes as data.num_workers, and at most "
            f"{MOST_WORKERS} are started for a file; choose the data yourself, with data=NAME "
            "data.num_workers=N"
        )
    own = {"cache_dir": os.environ.get("GALD_CACHE") or "~/.cache/gald", "train_transform": None}
    return config | {key: value for key, value in own.items() if key in config}


def refuse_other_machine(path: Any, key: str, file: str | Path) -> None:
    """Raise a `RefusedError` if a value that a file holds is a path on another machine."""
    if isinstance(path, str) and path[:2].replace("\\", "/") == "//":
        raise RefusedError(
            f"{file} has {shown(path)} as {key}, a path on another machine, and opening it would "
            "connect to that; copy what lies there, and name the copy on the command line"
        )


def _construct(part: Part, file: str, given: dict[str, Any]) -> Any:
    """Build a checked part; one that is built in two steps waits unless more is given."""
    arguments = {
        name: _construct(value, file, {}) if isinstance(value, Part) else value
        for name, value in part.arguments.items()
    }
    if part.partial and not given:
        return functools.partial(part.cls, **arguments)
    try:
        return part.cls(**arguments, **given)
    except FileNotFoundError:
        raise
    except Exception as error:  # of any type: timm and torch have no common one
        if isinstance(error, ValueError) and part.key.split(".")[0] == "data":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{file} describes a {part.key} that cannot be built ({reason}); use the version of "
            "gald that wrote it"
        ) from error
