"""Shape of what a file holds: a wrong kind of value is refused where the file is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from gald.options.values import Hint, bad_place, describe, show
from gald.run.text_file import parse_yaml


def check_shape(
    path: Path, content: Any, shape: Mapping[str, Hint], remedy: str, place: str = ""
) -> None:
    """Refuse a file unless it holds a mapping with certain keys, and values of certain kinds.

    Args:
        path: the file, for the message.
        content: what was read from it, plain data.
        shape: type hint of each key; further keys are accepted.
        remedy: end of the message.
        place: key of `content` in the file, if it is a part of it.

    Raises:
        ValueError: the message names the file, the key, its value and what must be there.
    """
    if not isinstance(content, Mapping):
        where = f" as {place}" if place else ""
        raise ValueError(
            f"{path} holds {shown(content)}{where}, where keys with values must be; {remedy}"
        )
    for key, hint in shape.items():
        name = f"{place}.{key}" if place else key
        if key not in content:
            raise ValueError(f"{path} has no key {name}; {remedy}")
        if bad_place(content[key], hint) is not None:
            raise ValueError(
                f"{path} holds {shown(content[key])} as {name}, which must be {describe(hint)}; "
                f"{remedy}"
            )


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the `config.yaml` of a run as plain data.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or holds no keys.
    """
    again = "copy it again, or train again"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; {again}")
    content = parse_yaml(path.read_bytes(), path, again)
    check_shape(path, content, {}, again)
    return {str(key): value for key, value in cast(dict[Any, Any], content).items()}


def shown(value: Any) -> str:
    """Name a value for a message: its kind, and the value itself if it is short."""
    kinds = {dict: "a mapping", list: "a list", str: "the text", type(None): "null"}
    kind = kinds.get(type(value), f"the {type(value).__name__}")
    return f"{kind} {show(value)}" if isinstance(value, str | bool | int | float) else kind
