"""Parameters and multiply-adds of each part of a network, counted without computing them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from gald.model.network import Network

NAMES = ("backbone", "host", "neck", "reduce", "ga", "ld", "expand", "head", "aux_head")
NOT_COUNTED = "norms, activations, pooling, resizing, sums, element-wise products"


def parts(model: Network) -> dict[str, nn.Module]:
    """Return the counted parts of a network in the order of the forward pass."""
    modules = {name: getattr(model, name, None) for name in NAMES}
    return {name: module for name, module in modules.items() if module is not None}


def count_params(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


class MacCounter(FlopCounterMode):
    """Counter of multiply-adds of convolutions, matrix products and attention, fused or not.

    torch counts two FLOPs per multiply-add (MAC), and none for the operations in `NOT_COUNTED`.
    Deviation from torch: torch counts the weight gradient of a grouped convolution as if it had one
    group; here each of the two gradients costs as much as the convolution itself, which is exact.
    """

    def __init__(self) -> None:
        backward = {torch.ops.aten.convolution_backward: _conv_backward}
        super().__init__(display=False, custom_mapping=backward)

    @property
    def macs(self) -> int:
        """Multiply-adds so far."""
        return self.get_total_flops() // 2


def _conv_backward(
    grad_shape: list[int],
    x_shape: list[int],
    weight_shape: list[int],
    *options: Any,
    **_: Any,
) -> int:
    transposed, output_mask = options[4], options[-1]
    forward = conv_flop_count(x_shape, weight_shape, grad_shape, transposed)
    return forward * (output_mask[0] + output_mask[1])  # gradients of the input and of the weight


def part_costs(model: Network, image_size: Sequence[int]) -> dict[str, float]:
    """Count parameters and GMACs of each part and of the whole, for one image in evaluation.

    Only shapes are propagated: nothing is computed, no random number is drawn, and the network is
    unchanged afterwards. The auxiliary head has 0 GMACs unless the aggregation reads its output.
    A host's GMACs are those without the parts inside it.
    The counts are those for the network's device; a module may compute differently on another one.

    Args:
        model: the network.
        image_size: height and width of the image.

    Returns:
        `cost/PART/params` and `cost/PART/gmacs`, PART one of `NAMES` or `total`.
    """
    counted_parts = parts(model)
    gmacs = dict.fromkeys(counted_parts, 0.0)
    running: list[list[int]] = []  # of each part that runs: MACs at its start, and in parts inside
    counter = MacCounter()

    def before(name: str) -> Any:
        return lambda *_: running.append([counter.macs, 0])

    def after(name: str) -> Any:
        def note(*_: Any) -> None:
            start, inside = running.pop()
            whole = counter.macs - start
            gmacs[name] = (whole - inside) / 1e9
            if running:  # GA and LD run inside a host
                running[-1][1] += whole

        return note

    hooks = [m.register_forward_pre_hook(before(name)) for name, m in counted_parts.items()]
    hooks += [m.register_forward_hook(after(name)) for name, m in counted_parts.items()]
    was_training = [module for module in model.modules() if module.training]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
            model.logits(torch.empty(1, model.image_channels, *image_size, device=device))
    finally:
        _remove(hooks)
        for module in was_training:
            module.training = True
    costs: dict[str, float] = {}
    for name, module in counted_parts.items():
        costs[f"cost/{name}/params"] = count_params(module)
        costs[f"cost/{name}/gmacs"] = gmacs[name]
    costs["cost/total/params"] = count_params(model)
    costs["cost/total/gmacs"] = counter.macs / 1e9
    return costs


def _remove(hooks: Iterable[Any]) -> None:
    for hook in hooks:
        hook.remove()
