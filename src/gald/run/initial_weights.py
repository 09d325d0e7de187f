"""Weights of another run as the start of a training, with the same or with another network."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gald.run.checkpoint import Checkpoint

_GENERATED = re.compile(r"class_\d+")  # names that gald convert gives to unknown classes


def start_from(
    model: nn.Module,
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    class_names: Sequence[str],
    strict: bool = True,
) -> str:
    """Load initial weights from a checkpoint; return a sentence that says what was taken.

    Without `strict`, a layer is taken if all its tensors are there with the same names and shapes.
    A part of another class, such as another GA, is taken as a whole or not at all, because equal
    names mean nothing between classes.

    Args:
        model: the network to train; changed in place.
        checkpoint: the source of the weights.
        config: resolved configuration of `model`, plain data.
        class_names: names of the classes that `model` is trained on.
        strict: refuse weights that do not fit in every tensor.

    Raises:
        ValueError: a tensor differs although `strict` is set, or nothing fits.
    """
    theirs, ours = checkpoint.weights, model.state_dict()
    left = _left(theirs, ours, checkpoint, config, class_names)
    took = [key for key in ours if key not in left]
    summary = _summarise(left, theirs, ours, len(checkpoint.class_names), len(class_names))
    if left and strict:
        raise ValueError(
            f"{checkpoint.path} has {_first_difference(left, theirs, ours)}; in all it differs in "
            f"{summary}; choose the model options and the data that it was trained with, or add "
            "init_from_strict=false to take only what fits"
        )
    if not took:
        raise ValueError(
            f"nothing in {checkpoint.path} fits this network, which differs in {summary}; choose "
            "the model options that it was trained with, or remove init_from"
        )
    model.load_state_dict({key: theirs[key] for key in took}, strict=False)
    ending = f"; left {summary}" if left else ""
    return f"init_from: took {len(took)} of {len(ours)} tensors ({_parts(took, ours)}){ending}"


def _left(
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    class_names: Sequence[str],
) -> dict[str, str]:
    """Return the tensors that are not taken, with the reason where shapes do not show it."""
    keys = sorted(theirs.keys() | ours.keys())
    shuffled = _shuffled(checkpoint.class_names, class_names)
    differing = {key for key in keys if _shape(theirs, key) != _shape(ours, key)}
    layers = {_layer(key) for key in differing}
    left = {}
    for key in keys:
        part = key.split(".")[0]
        before, now = (_class_of(c.get(part)) for c in (checkpoint.config["model"], config))
        if before != now and any(other.split(".")[0] == part for other in differing):
            left[key] = f"{before} there, {now} here"
        elif _layer(key) in layers:
            left[key] = ""
        elif shuffled and "classify" in key.split("."):
            left[key] = shuffled
    return left


def _shuffled(theirs: Sequence[str], ours: Sequence[str]) -> str | None:
    """Say which class has another number, if one has; other names alone are accepted."""
    if len(theirs) != len(ours) or all(_GENERATED.fullmatch(name) for name in theirs):
        return None
    for number, name in enumerate(ours):
        if name in theirs and theirs[number] != name:
            return f"{name} is class {theirs.index(name)} there, {number} here"
    return None


def _class_of(config: Any) -> str:
    """Return the class names in a part's config, and its timm model if it is a backbone."""
    if not isinstance(config, Mapping):
        return "none"
    inner = [_class_of(value) for value in config.values() if isinstance(value, Mapping)]
    name = str(config.get("_target_", "")).rpartition(".")[2]
    if name == "TimmBackbone":
        return str(config.get("name")).split(".")[0]
    inside = ", ".join(text for text in inner if text)
    return f"{name}({inside})" if inside else name


def _summarise(
    left: Mapping[str, str],
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    classes_there: int,
    classes_here: int,
) -> str:
    """List what is left by the largest modules that are left as a whole, with the difference."""
    kept = {place for key in ours.keys() | theirs.keys() if key not in left for place in _path(key)}
    modules: dict[str, list[str]] = {}
    for key in left:
        module = next((place for place in _path(key) if place not in kept), key)
        modules.setdefault(module, []).append(key)
    entries = []
    for module, keys in modules.items():
        reason = left[keys[0]]
        both = [key for key in keys if key in theirs and key in ours]
        shapes = [(theirs[key].shape, ours[key].shape) for key in both]
        other = [(there, here) for there, here in shapes if there != here]
        counts = (classes_there, classes_here)
        if reason:
            pass
        elif not both:
            reason = f"only {'there' if keys[0] in theirs else 'here'}"
        elif classes_there != classes_here and any((*a[:1], *b[:1]) == counts for a, b in other):
            reason = f"{classes_there} classes there, {classes_here} here"
        elif other:
            reason = f"{tuple(other[0][0])} there, {tuple(other[0][1])} here"
        else:
            reason = "other tensors"
        entries.append(f"{module} ({reason})")
    more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
    return ", ".join(entries[:8]) + more


def _parts(took: Sequence[str], ours: Mapping[str, Tensor]) -> str:
    total: dict[str, int] = {}
    for key in ours:
        part = key.split(".")[0]
        total[part] = total.get(part, 0) + 1
    taken = {part: sum(key.split(".")[0] == part for key in took) for part in total}
    return ", ".join(
        part if taken[part] == count else f"part of {part}"
        for part, count in total.items()
        if taken[part]
    )


def _first_difference(
    left: Mapping[str, str], theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> str:
    for key in left:
        there, here = _shape(theirs, key), _shape(ours, key)
        if there != here:
            return f"{there} where this network has {here} for {key}"
    return "the classes in another order"


def _shape(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...] | str:
    return tuple(weights[key].shape) if key in weights else "nothing"


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _path(key: str) -> list[str]:
    """Return the modules around a tensor, outermost first, and the tensor itself."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
