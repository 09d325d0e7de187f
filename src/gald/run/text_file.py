"""Reading of YAML and JSON files as plain data, with bounds on their size and nesting.

A few lines of YAML can repeat themselves a billion times by aliases, and brackets inside brackets
exhaust the stack of a reader. Files are measured before they are read.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from yaml.constructor import ConstructorError

from gald.run.limits import refuse_above

_MEGABYTE = 10**6
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
_OPENING = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSING = (yaml.SequenceEndEvent, yaml.MappingEndEvent)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_AGAIN = "copy it again"
_SHORT = (
    20_000  # characters of a wrong YAML text that the slow reader reads too, to explain it better
)
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_json(path: Path, remedy: str = _AGAIN, fault: str = "is not valid JSON") -> Any:
    """Read a JSON file.

    Args:
        path: the file, of at most GALD_MAX_JSON_MB (32) megabytes.
        remedy: what to do if it is not JSON.
        fault: how to say that it is not JSON.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or is larger or nests deeper than its bounds.
    """
    size = path.stat().st_size
    words = "has {0} bytes, and a JSON file may have {1} MB"
    refuse_above(size, str(path), words, "GALD_MAX_JSON_MB", _MEGABYTE, remedy)
    data = path.read_bytes()
    refuse_deep(data, path, remedy)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} {fault} ({error}); {remedy}") from error


def refuse_deep(data: bytes, path: Path, remedy: str = _AGAIN) -> None:
    """Raise a ValueError if JSON nests deeper than GALD_MAX_NESTING (100) brackets."""
    brackets = np.frombuffer(_STRING.sub(b"", data).translate(None, _NO_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    _refuse_nesting(int(np.cumsum(steps).max(initial=0)), path, remedy)


def parse_yaml(data: bytes, path: Path, remedy: str = _AGAIN) -> Any:
    """Read YAML as plain data: text, numbers, lists and dicts; dates stay text.

    Args:
        data: the content of the file, at most GALD_MAX_YAML_MB (1) megabytes with at most
            GALD_MAX_YAML_VALUES (50000) values, counted with the repetitions by aliases.
        path: of the file, for messages.
        remedy: what to do if it is too large.

    Raises:
        ValueError: it is not YAML, repeats a key, or exceeds a bound.
    """
    refuse_long(data, path, remedy)
    try:
        text = data.decode("utf-8-sig")
        try:
            _refuse_large(text, path, remedy, _FAST)
        except yaml.YAMLError:
            if len(text) >= _SHORT:
                raise
            _refuse_large(text, path, remedy, yaml.SafeLoader)
        return yaml.load(text, _Plain)  # builds plain data only
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML ({reason}); correct the file") from error


def refuse_long(data: bytes, path: Path, remedy: str = _AGAIN) -> None:
    """Raise a ValueError if YAML or another list of settings has more than GALD_MAX_YAML_MB (1)."""
    words = "has {0} bytes, and such a file may have {1} MB"
    refuse_above(len(data), str(path), words, "GALD_MAX_YAML_MB", _MEGABYTE, remedy)


def _refuse_large(text: str, path: Path, remedy: str, reader: Any) -> None:
    """Raise a ValueError if the values that a YAML text stands for are too many or too deep."""
    sizes: dict[str, _Size] = {}  # by anchor
    open_parts: list[tuple[str | None, list[_Size]]] = [(None, [])]
    for count, event in enumerate(yaml.parse(text, reader)):
        _refuse_values(count // 2, path, remedy)  # early, and never for fewer values
        if isinstance(event, _OPENING):
            open_parts.append((event.anchor, []))
            _refuse_nesting(len(open_parts) - 1, path, remedy)
            continue
        if isinstance(event, _CLOSING):
            anchor, parts = open_parts.pop()
            size = _around(parts)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, _ONE
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor, _ONE)
            if any(outer == event.anchor for outer, _ in open_parts):
                raise ValueError(
                    f"{path} has *{event.anchor} inside of what it stands for; write it out"
                )
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer = open_parts[-1][1]
        outer[:] = [_beside(*outer, size)]
    for size in open_parts[0][1]:
        _refuse_size(size, path, remedy)


def refuse_bulky(content: Any, path: Path, remedy: str = _AGAIN) -> None:
    """Raise a ValueError if plain data of a file has too many values or nests too deep.

    A list that is stored once can be in a thousand places; a copy has it a thousand times.

    Args:
        content: dicts, lists and tuples of other values.
        path: of the file, for messages.
        remedy: what to do if it is too large.
    """
    sizes: dict[int, _Size] = {}
    inside: set[int] = set()
    todo: list[tuple[Any, bool]] = [(content, False)]
    while todo:
        part, is_measured = todo.pop()
        if not isinstance(part, dict | list | tuple) or id(part) in sizes:
            continue
        parts = part.values() if isinstance(part, dict) else part
        if is_measured:  # its parts are
            inside.discard(id(part))
            sizes[id(part)] = _around([sizes.get(id(one), _ONE) for one in parts])
        elif id(part) in inside:
            raise ValueError(f"{path} has a list or dict that contains itself; {remedy}")
        else:
            inside.add(id(part))
            todo.append((part, True))
            todo += [(one, False) for one in parts]
    _refuse_size(sizes.get(id(content), _ONE), path, remedy)


class _Size(NamedTuple):
    """Number of values, and levels of lists and dicts."""

    count: int
    depth: int


_ONE = _Size(1, 0)


def _beside(*parts: _Size) -> _Size:
    return _Size(sum(p.count for p in parts), max((p.depth for p in parts), default=0))


def _around(parts: Sequence[_Size]) -> _Size:
    inner = _beside(*parts)
    return _Size(inner.count + 1, inner.depth + 1)


def _refuse_size(size: _Size, path: Path, remedy: str) -> None:
    _refuse_values(size.count, path, remedy)
    _refuse_nesting(size.depth, path, remedy)


def _refuse_values(count: int, path: Path, remedy: str) -> None:
    words = "stands for more than {1} values"
    refuse_above(count, str(path), words, "GALD_MAX_YAML_VALUES", 1, remedy)


def _refuse_nesting(depth: int, path: Path, remedy: str) -> None:
    words = "nests more than {1} levels deep"
    refuse_above(depth, str(path), words, "GALD_MAX_NESTING", 1, remedy)


class _Plain(_FAST):
    """Loader of plain data that refuses a key that is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a dict."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise ConstructorError(
                        None, None, f"found duplicate key {key.value}", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# Dates and a single = are text; 1e3 is a number, as in configurations.
_TEXT = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+\Z")
_Plain.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in _TEXT]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Plain.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
