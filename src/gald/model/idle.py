"""Parameters that no output depends on, found without computing anything."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call


def idle_parameters(model: nn.Module, size: tuple[int, int]) -> list[str]:
    """List the trained parameters of a network that get no gradient.

    Such parameters stop a training on several devices, which waits for every gradient. HRNet has
    some if only its last map is read. Only shapes are propagated: nothing is computed, no random
    number is drawn, and the network is unchanged.

    Args:
        model: image (B, 3, H, W), or (B, model.image_channels, H, W) -> tuple of tensors or None.
        size: height and width of an image for it.

    Returns:
        names; none if the network cannot run on shapes alone.
    """
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    parameters: dict[str, Tensor] = {k: fakes.from_tensor(p) for k, p in model.named_parameters()}
    buffers: dict[str, Tensor] = {key: fakes.from_tensor(b) for key, b in model.named_buffers()}
    device = next(model.parameters()).device
    try:
        with fakes:
            image = torch.empty(2, getattr(model, "image_channels", 3), *size, device=device)
            outputs = functional_call(model, parameters | buffers, (image,))
    except Exception:  # a module of the user may do anything
        return []
    reached = leaves_of(t.grad_fn for t in outputs if t is not None)
    return [key for key, p in parameters.items() if p.requires_grad and id(p) not in reached]


def leaves_of(roots: Iterable[Any]) -> set[int]:
    """Return the ids of the tensors at the leaves of an autograd graph."""
    nodes, seen, leaves = list(roots), set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        nodes.extend(following for following, _ in node.next_functions)
    return leaves
