"""Check of the classes that a checkpoint's config names, since it may come from a stranger."""

import os
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object
from torch import nn


def check_targets(config: Any) -> None:
    """Refuse a config unless it builds only classes of gald, torch.nn and trusted packages.

    Args:
        config: plain data; every `_target_` in it is checked before anything is built.

    Raises:
        ValueError: a `_target_` names anything else. GALD_TRUST=PACKAGE allows a package of your
            own; separate several with commas.
    """
    trusted = {"gald", *filter(None, os.environ.get("GALD_TRUST", "").split(","))}
    for target in _targets(config):
        package = target.split(".")[0]
        # The dotted path alone proves nothing: gald.cli.os.system is found through an import.
        named = get_object(target) if package in {"torch", *trusted} else None
        defined_in = getattr(named, "__module__", "").split(".")[0]
        layer = defined_in == "torch" and isinstance(named, type) and issubclass(named, nn.Module)
        if not (layer or (isinstance(named, type) and defined_in in trusted)):
            raise ValueError(
                f"the checkpoint's config would call {target}, which is not a class of gald or "
                f"torch.nn; set GALD_TRUST={package} if you trust that code"
            )


def _targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield str(config["_target_"])
        for value in config.values():
            yield from _targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _targets(value)
