"""Whether plain data is of the type that a signature asks for, and that type in words."""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

_LARGEST = 2**63  # of the numbers that tensors and arrays can have as sizes


def fits(value: Any, hint: Any) -> bool:
    """Return whether plain data is of a type; a whole number is a float too, and no truth value."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inside)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(
            fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items()
        )
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list) and all(fits(item, inside[0]) for item in value)
    if hint in (None, type(None)):
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < _LARGEST and math.isfinite(value)
    return hint in (str, bool) and isinstance(value, hint)


def describe(hint: Any) -> str:
    """Return a type in words."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in inside)
    if origin is Literal:
        return " or ".join(map(str, inside))
    if origin is not None and issubclass(origin, Mapping):
        return f"a table of {describe(inside[1])}"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list of {describe(inside[0])}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(hint, "null" if hint in (None, type(None)) else "an object")
