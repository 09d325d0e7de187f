"""Networks and context modules by the names of their options, for use in Python."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from gald.config import CONF_DIR, compose, options_of
from gald.model.segmentor import Segmentor
from gald.run.building import build_own


def segmentor(num_classes: int, options: Sequence[str] = (), **groups: str) -> Segmentor:
    """Build a network from options of the config group `model`; see `gald.segmentor`.

    Raises:
        ValueError: there is no such group or option, or the parts do not fit each other.
    """
    known = sorted(path.name for path in (CONF_DIR / "model").iterdir() if path.is_dir())
    words = []
    for group, option in groups.items():
        if group not in known:
            raise ValueError(f"model has no part {group!r}; choose one of {', '.join(known)}")
        is_timm = group == "backbone" and option not in _options(group)
        words += [f"model.backbone.name={option}" if is_timm else f"model/{group}={option}"]
    return build_own(compose("train", [*words, *options]).model, num_classes=num_classes)


def context_module(slot: str, option: str, channels: int, arguments: dict[str, Any]) -> nn.Module:
    """Build a GA or an LD by the name of its option; see `gald.ga` and `gald.ld`.

    Raises:
        ValueError: there is no such option, or it needs more than the maps of a slot.
    """
    if option not in _options(slot):
        choices = ", ".join(_options(slot))
        raise ValueError(f"model/{slot} has no option {option!r}; choose one of {choices}")
    model = compose("train", [f"model/{slot}={option}", f"model.channels={channels}"]).model
    if model[slot].get("_partial_"):
        raise ValueError(
            f"{slot}={option} also reads maps of the backbone, so it needs a network; build one "
            f"with gald.segmentor({slot}={option!r})"
        )
    unknown = sorted(arguments.keys() - model[slot].keys())
    if unknown:
        names = ", ".join(key for key in model[slot] if key not in ("_target_", "channels"))
        raise ValueError(f"{slot}={option} has no argument {unknown[0]}; it has {names or 'none'}")
    return build_own(model[slot], **arguments)


def _options(group: str) -> list[str]:
    return options_of(f"model/{group}").split(", ")
