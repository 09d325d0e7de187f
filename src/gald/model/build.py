"""Networks and context modules by the names of their options, for use in Python."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from gald.config import compose, options_of
from gald.model.plug.module import PluggedModule
from gald.model.plug.places import place_of, probe
from gald.model.plugged import logits_of
from gald.model.segmentor import Segmentor
from gald.run.building import build_own


def segmentor(num_classes: int, options: Sequence[str] = (), **groups: str) -> Segmentor:
    """Build a network from options of the config group `model`; see `gald.segmentor`.

    Raises:
        ValueError: there is no such option, or the parts do not fit each other.
    """
    words = [f"model/{group}={option}" for group, option in groups.items()]
    if (name := groups.get("backbone")) and name not in options_of("model/backbone").split(", "):
        words.remove(f"model/backbone={name}")
        words.append(f"model.backbone.name={name}")
    return build_own(compose("train", [*words, *options]).model, num_classes=num_classes)


def context_module(slot: str, option: str, channels: int, arguments: dict[str, Any]) -> nn.Module:
    """Build a GA or an LD by the name of its option; see `gald.ga` and `gald.ld`.

    Raises:
        ValueError: there is no such option, or it needs more than the maps of a slot.
    """
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


def plug(network: nn.Module, at: str, ga: str, ld: str, channels: int | None) -> PluggedModule:
    """Put GA and LD into a network; see `gald.plug`.

    Raises:
        ValueError: there is no such option or place.
    """
    name = type(network).__name__
    found = probe(network, lambda image: logits_of(network(image)).logits, name, at)
    place = place_of(found.places, at, name)
    width = channels or place.channels
    aggregate = context_module("ga", ga, width, {})
    distribute = context_module("ld", ld, width, {})
    return PluggedModule(network, at, place, aggregate, distribute, width)
