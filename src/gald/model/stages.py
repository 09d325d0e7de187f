"""Stem, stages and layers of a timm network, as timm's own `group_matcher` divides them."""

from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn


def layer_numbers(net: nn.Module, name: str, stages: bool = False) -> dict[str, int]:
    """Number the layer, or the stage, of every parameter of a feature extractor.

    Args:
        net: the result of `timm.create_model(name, features_only=True)`.
        name: timm's name of the network.
        stages: whether to number stages instead of the layers in them, usually residual blocks.

    Returns:
        Parameter name -> number, without gaps. The stem has 0. Parameters that timm's classifier
        does not have belong to the last one.

    Raises:
        ValueError: timm does not divide this network.
    """
    with torch.device("meta"):
        whole: Any = timm.create_model(name)
    if not hasattr(whole, "group_matcher"):
        raise ValueError(
            f"timm does not divide {name} into layers; set model.backbone.frozen to true or "
            "false and task.layer_decay=null, or choose another model.backbone.name"
        )
    numbers = group_parameters(whole, whole.group_matcher(coarse=stages), reverse=True)
    # A features_only wrapper may prefix names and join `stages.0` to `stages_0`.
    flat = {key.replace(".", "_"): number for key, number in numbers.items()}
    names = [key for key, _ in net.named_parameters()]
    found = {
        key: flat.get(key.removeprefix("model.").removeprefix("body.").replace(".", "_"))
        for key in names
    }
    order = sorted({number for number in found.values() if number is not None})
    if not order:
        raise ValueError(
            f"the layers of {name} have other names without its classifier; set "
            "model.backbone.frozen to true or false and task.layer_decay=null"
        )
    last = len(order) - 1
    return {key: last if n is None else order.index(n) for key, n in found.items()}
