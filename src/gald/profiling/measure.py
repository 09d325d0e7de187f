"""Measures one pass through a module: arithmetic, then memory, then time."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gald.model.segmentor import Segmentor
from gald.profiling.flops import MacCounter, parts
from gald.profiling.memory import TensorMemoryTracker


class PassCost(NamedTuple):
    """What one pass costs: multiply-adds, milliseconds (median), mebibytes above the start."""

    gmacs: float
    ms: float
    mib: float


class CostMeter:
    """Measures passes on one device at one precision.

    Args:
        device: where everything lies.
        dtype: what autocast computes in, or None for no autocast.
        rounds: how often a pass is timed; the median counts.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None, rounds: int) -> None:
        self.device = device
        self.dtype = dtype
        self.rounds = rounds
        self.memory = (
            "peak of CUDA's allocator above weights and inputs, workspaces included"
            if device.type == "cuda"
            else "peak of live tensors above weights and inputs, without buffers in kernels"
        ) + "; in training with what backward keeps and the gradients"

    def record(
        self, model: Segmentor, whole: Callable[..., Any], image: Tensor
    ) -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
        """Each part that a pass through the whole calls, with what it is called with."""
        seen: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda module, inputs: seen.update({name: (module, inputs)})

        hooks = [m.register_forward_pre_hook(keep(name)) for name, m in parts(model).items()]
        with torch.no_grad(), self._autocast():
            whole(image)
        for hook in hooks:
            hook.remove()
        return seen

    def measure(
        self, module: nn.Module, call: Callable[..., Any], inputs: tuple[Any, ...], phase: str
    ) -> PassCost:
        """The cost of one call; in training of the call and its backward pass."""
        training = phase == "train"
        fresh = _fresh(inputs, training)
        wanted = [t for t in (*module.parameters(), *_tensors(fresh)) if t.requires_grad]

        def forward() -> list[Tensor]:
            with torch.set_grad_enabled(training), self._autocast():
                return [t for t in _tensors(call(*fresh)) if t.requires_grad]

        # What would come back from the parts behind; made beforehand, for it is not this part's.
        incoming = [torch.ones_like(t) for t in forward()]

        def once() -> None:
            made = forward()
            if made:
                torch.autograd.grad(made, wanted, incoming, allow_unused=True)

        with MacCounter() as counter:
            once()
        peak = self._peak(
            once, [*module.parameters(), *module.buffers(), *_tensors(fresh), *incoming]
        )
        times = []
        for _ in range(self.rounds):
            self._synchronise()
            start = time.perf_counter()
            once()
            self._synchronise()
            times.append(1000 * (time.perf_counter() - start))
        return PassCost(counter.macs / 1e9, statistics.median(times), peak / 2**20)

    def _peak(self, once: Callable[[], None], outside: list[Tensor]) -> int:
        if self.device.type != "cuda":
            with TensorMemoryTracker(outside) as memory:
                once()
            return memory.peak
        self._synchronise()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        once()
        self._synchronise()
        return torch.cuda.max_memory_allocated(self.device) - before

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    def _synchronise(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, tuple | list) else []


def _fresh(value: Any, grad: bool) -> Any:
    """The same inputs without history; in training, gradients flow into whatever can have one."""
    if isinstance(value, Tensor):
        if not (grad and value.is_floating_point()):
            return value.detach()
        # A view, since the counter cannot follow gradients into a leaf.
        return value.detach().requires_grad_().view_as(value)
    return tuple(_fresh(v, grad) for v in value) if isinstance(value, tuple | list) else value
