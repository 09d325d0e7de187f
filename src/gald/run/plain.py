"""Plain data from a file: tables, lists, text and numbers, in which nothing refers to anything."""

from pathlib import Path
from typing import Any


class RefusedError(ValueError):
    """A file wants more than plain data and the options of gald: it refers to, or calls, code."""


def plain_data(content: Any, file: str | Path, place: str = "") -> Any:
    """Copy a config that was read from a file, and refuse what is not plain data.

    An interpolation such as `${oc.env:HOME}` is refused wherever it is, also if it is escaped:
    resolved later, it could read the environment or call code.

    Args:
        content: the config, as the file holds it; `gald.run.text_file` has measured it.
        file: the file, for the message.
        place: key of the config in the file, for the message.

    Raises:
        ValueError: a key or value has an interpolation, or is not plain data.
    """
    return _Copier(str(file)).copy(content, place)


def join(place: str, key: object) -> str:
    """Return the dotted key of an entry."""
    return f"{place}.{key}" if place else str(key)


def shown(value: object) -> str:
    """Return a value for a message, at most 80 characters long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Copier:
    def __init__(self, file: str) -> None:
        self.file = file

    def copy(self, value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return {
                self._key(key, place): self.copy(item, join(place, key))
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.copy(item, join(place, index)) for index, item in enumerate(value)]
        if isinstance(value, str):
            return self._text(value, f"the value of {place or 'its config'}")
        if value is None or isinstance(value, bool | int | float):
            return value
        raise ValueError(
            f"{self.file} has a {type(value).__name__} as {place or 'its config'}, which is "
            "neither text nor a number; copy the file again from its source"
        )

    def _key(self, key: object, place: str) -> Any:
        if isinstance(key, str):
            return self._text(key, f"a key in {place or 'its config'}")
        if key is None or isinstance(key, bool | int | float):
            return key
        raise ValueError(
            f"{self.file} has a {type(key).__name__} as a key in {place or 'its config'}; copy the "
            "file again from its source"
        )

    def _text(self, text: str, what: str) -> str:
        if "${" in text:
            raise RefusedError(
                f"{self.file} has {shown(text)} as {what}, and gald resolves nothing that a file "
                "refers to; write the value itself there"
            )
        return str(text)
