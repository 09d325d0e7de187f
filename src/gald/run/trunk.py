"""The part of a network's config that GA and LD are added to: a backbone or a host."""

from collections.abc import Mapping
from typing import Any

TRUNKS = ("backbone", "host")


def trunk_key(model: Mapping[str, Any]) -> str | None:
    """Return the key of the backbone or host in a config at `model`; None if it has neither."""
    return next((key for key in TRUNKS if isinstance(model.get(key), Mapping)), None)


def trunk_name(model: Mapping[str, Any]) -> str:
    """Name the backbone or host of a config at `model`, as `resnet18` or `unet on resnet18`.

    A class of the user's own has its own name; without a backbone or host the name is empty.
    """
    key = trunk_key(model)
    if key is None:
        return ""
    part = model[key]
    config = part.get("config")
    kind = config.get("model_type") if isinstance(config, Mapping) else None
    named = [part.get(name) for name in ("name", "decoder", "encoder", "network")]
    words = [word for word in (*named, kind) if isinstance(word, str) and word]
    return " on ".join(words) or str(part.get("_target_", "")).rpartition(".")[2]
