"""Whose code a checkpoint may call: its config names classes, and may come from a stranger."""

import os
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object
from torch import nn


def check_targets(config: Any) -> None:
    """Let a config build nothing but classes of gald, torch.nn and the packages of GALD_TRUST.

    Args:
        config: plain data; every `_target_` in it is checked before anything is built.

    Raises:
        ValueError: a `_target_` names anything else; GALD_TRUST=PACKAGE admits a package of yours,
            several separated by commas.
    """
    trusted = {"gald", *filter(None, os.environ.get("GALD_TRUST", "").split(","))}
    for target in _targets(config):
        package = target.split(".")[0]
        # A path may lead through a module of ours to one that it imports: gald.cli.os.system.
        found = get_object(target) if package in {"torch", *trusted} else None
        home = getattr(found, "__module__", "").split(".")[0]
        layer = home == "torch" and isinstance(found, type) and issubclass(found, nn.Module)
        if not (layer or (isinstance(found, type) and home in trusted)):
            raise ValueError(
                f"the checkpoint's config would call {target}, which is no class of gald or "
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
