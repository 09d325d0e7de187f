"""Values of options: whether they fit a type hint, and how both are written."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gald.options.ranges import Length, Range

Hint = Any
NOTHING = inspect.Parameter.empty
_PLAIN = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def bad_place(value: Any, hint: Hint) -> str | None:
    """Return where a value does not fit a hint: "" for the whole, `[1]` for an entry; else None."""
    kind, ranges = _split(hint)
    if kind in (Any, inspect.Parameter.empty):
        return None
    if get_origin(kind) in (Union, UnionType):
        places = [bad_place(value, one) for one in get_args(kind)]
        return None if None in places else max((p for p in places if p is not None), key=len)
    if kind is NoneType:
        return None if value is None else ""
    if get_origin(kind) is Literal:
        same = (type(value) is type(one) and value == one for one in get_args(kind))
        return None if any(same) else ""
    place = _bad_plain(value, kind) if kind in _PLAIN else _bad_nested(value, kind)
    if place is not None:
        return place
    return None if all(one.accepts(value) for one in ranges) else ""


def describe(hint: Hint) -> str:
    """Describe the values that fit a hint, as `a finite number >= 0`."""
    kind, ranges = _split(hint)
    limits = "".join(f" {one}" for one in ranges if str(one))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(sorted((describe(one) for one in get_args(kind)), key="null".__eq__))
    if kind is NoneType:
        return "null"
    if get_origin(kind) is Literal:
        choices = [show(one) for one in get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if kind is str:
        return "a text that is not empty" if limits else "a text"
    if kind in _PLAIN:
        return _PLAIN[kind] + limits
    if _is_list(kind):
        (inner, *_) = get_args(kind) or (Any,)
        return f"a list{limits}" if inner is Any else f"a list{limits}, each {describe(inner)}"
    if _is_table(kind):
        return "a mapping {name: value}"
    return "a part with a _target_"


def show(value: Any) -> str:
    """Write a value as on the command line; a long one is cut."""
    text = _write(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _write(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_write(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_write(inner) for inner in value) + "]"
    return str(value)


def suggestion(value: Any, hint: Hint, default: Any = NOTHING) -> Any:
    """Return a value to choose instead: the one that was meant, the default, or an example."""
    if isinstance(value, float) and value.is_integer() and bad_place(int(value), hint) is None:
        return int(value)
    for one in _alternatives(hint):
        for limit in _split(one)[1]:
            if isinstance(limit, Range) and limit.example is not None:
                return limit.example
    if default is not NOTHING and bad_place(default, hint) is None:
        return default
    return _example(hint)


def entry_hint(hint: Hint) -> Hint | None:
    """Return the hint of the entries of a mapping; None if a hint is not for mappings."""
    for one in _alternatives(hint):
        kind, _ = _split(one)
        if _is_table(kind):
            return (get_args(kind) or (Any, Any))[1]
    return None


def is_part(hint: Hint) -> bool:
    """Return whether a hint asks for something that is built, such as a module."""
    kind, _ = _split(hint)
    if get_origin(kind) in (Union, UnionType):
        return all(one is NoneType or is_part(one) for one in get_args(kind))
    plain = kind in _PLAIN or kind in (Any, NOTHING, NoneType) or get_origin(kind) is Literal
    return not (plain or _is_list(kind) or _is_table(kind))


def _alternatives(hint: Hint) -> tuple[Hint, ...]:
    kind, _ = _split(hint)
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (hint,)


def _split(hint: Hint) -> tuple[Hint, list[Range | Length]]:
    """Return a hint without its ranges, and the ranges."""
    if get_origin(hint) is not Annotated:
        return hint, []
    kind, *ranges = get_args(hint)
    return kind, [one for one in ranges if isinstance(one, Range | Length)]


def _bad_plain(value: Any, kind: Hint) -> str | None:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number and abs(value) <= sys.float_info.max else ""
    if kind is int:
        return None if isinstance(value, int) and not isinstance(value, bool) else ""
    return None if isinstance(value, kind) else ""


def _bad_nested(value: Any, kind: Hint) -> str | None:
    if _is_list(kind):
        if not isinstance(value, list | tuple):
            return ""
        (inner, *_) = get_args(kind) or (Any,)
        places = ((number, bad_place(one, inner)) for number, one in enumerate(value))
        return next((f"[{number}]{place}" for number, place in places if place is not None), None)
    if _is_table(kind):
        if not isinstance(value, Mapping):
            return ""
        inner = (get_args(kind) or (Any, Any))[1]
        places = ((name, bad_place(one, inner)) for name, one in value.items())
        return next((f".{name}{place}" for name, place in places if place is not None), None)
    return None if isinstance(value, Mapping) and "_target_" in value else ""


def _is_list(kind: Hint) -> bool:
    origin = get_origin(kind) or kind
    return inspect.isclass(origin) and issubclass(origin, Sequence) and origin is not str


def _is_table(kind: Hint) -> bool:
    origin = get_origin(kind) or kind
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _example(hint: Hint) -> Any:
    """Return a value that fits a hint, for a message; NOTHING if there is no obvious one."""
    kind, ranges = _split(hint)
    if get_origin(kind) in (Union, UnionType):
        found = [_example(one) for one in get_args(kind)]
        return None if None in found else next((v for v in found if v is not NOTHING), NOTHING)
    if kind is NoneType:
        return None
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if kind is bool:
        return False
    if _is_list(kind):
        inner = _example((get_args(kind) or (Any,))[0])
        count = max((one.least for one in ranges if isinstance(one, Length)), default=1)
        return NOTHING if inner is NOTHING else [inner] * count
    for one in ranges:
        if isinstance(one, Range):
            choices = (one.example, one.least, one.most, 1, 0.5, 0)
            return next((v for v in choices if v is not None and one.accepts(v)), NOTHING)
    return 1 if kind in (int, float) else NOTHING
