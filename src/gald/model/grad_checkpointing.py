"""Gradient checkpointing of a timm network: activations are computed again in the backward pass."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from gald.model.freezing import batch_norms


class GradCheckpointing:
    """Runs a network with timm's checkpointing while it trains.

    Batch norm would update its running statistics a second time when the backward pass computes its
    activations again. Here this second pass leaves them unchanged, so the network after a step is
    the same as without checkpointing.

    Args:
        create: builds the network; it is called on torch's meta device, to see whether
            checkpointing keeps fewer activations.
        name: timm's name of the network, for the message.

    Raises:
        ValueError: the network cannot do it.
    """

    def __init__(self, create: Callable[[], Any], name: str) -> None:
        self.forward = False  # whether the network runs, as opposed to the backward pass
        self.norms: WeakSet[nn.Module] = WeakSet()
        with torch.device("meta"):
            net = create()
        before = _kept_elements(net)
        try:
            _enable(net, True)
            works = _kept_elements(net) < before
        except Exception:  # of any type: timm has no common one
            works = False
        if not works:
            raise ValueError(
                f"{name} cannot compute activations again in the backward pass; set "
                "model.backbone.grad_checkpointing=false"
            )

    def run(self, net: Any, x: Tensor, training: bool) -> list[Tensor]:
        """Compute the maps; checkpointing is on only in training, and off on shapes alone."""
        _enable(net, training and x.device.type != "meta")
        if training:
            for norm in batch_norms(net):  # may be replaced, by synchronised ones for example
                if norm not in self.norms:
                    norm.register_forward_pre_hook(self._before)
                    norm.register_forward_hook(self._after, always_call=True)
                    self.norms.add(norm)
        self.forward = True
        try:
            return net(x)
        finally:
            self.forward = False

    def _before(self, norm: Any, _: Any) -> None:
        if norm.training and not self.forward:
            norm.momentum_of_forward, norm.momentum = norm.momentum, 0.0

    def _after(self, norm: Any, *_: Any) -> None:
        # Called in any case: the second pass stops as soon as all activations are there.
        if "momentum_of_forward" in norm.__dict__:
            norm.momentum = norm.__dict__.pop("momentum_of_forward")
            if getattr(norm, "num_batches_tracked", None) is not None:
                norm.num_batches_tracked.sub_(1)


def _enable(net: Any, on: bool) -> None:
    (net if hasattr(net, "set_grad_checkpointing") else net.model).set_grad_checkpointing(on)


def _kept_elements(net: Any) -> int:
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    side = 2 * max(net.feature_info.reduction())
    height, width = (-(-s // side) * side for s in net.pretrained_cfg["input_size"][-2:])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.empty(2, 3, height, width, device="meta"))
    return kept
