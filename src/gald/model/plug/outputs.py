"""The feature map inside what a module returns: a tensor, or a list or mapping with it."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Names of the deepest map, of torchvision and of transformers, in this order.
_NAMES = ("out", "high", "feature_maps", "last_hidden_state")


def feature_of(output: Any) -> Tensor | None:
    """Return the feature of an output, or None if it has none.

    It is the output itself, the last tensor of a sequence, or the entry of a mapping that is called
    `out`, `high`, `feature_maps` or `last_hidden_state`, else its last one.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        named = [output[name] for name in _NAMES if name in output]
        values = [*reversed(list(output.values())), *reversed(named)]
    elif isinstance(output, list | tuple):
        values = list(output)
    else:
        return None
    found = (feature_of(value) for value in reversed(values))
    return next((feature for feature in found if feature is not None), None)


def with_feature(output: Any, old: Tensor, new: Tensor) -> Any:
    """Copy an output with a feature in the place of another one, wherever that stands."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        copied: Any = copy.copy(output)
        for name, value in output.items():
            changed = with_feature(value, old, new)
            if changed is not value:
                copied[name] = changed
        return copied
    if isinstance(output, list | tuple):
        values = [with_feature(value, old, new) for value in output]
        named = hasattr(output, "_fields")
        return type(output)(*values) if named else type(output)(values)
    return output
