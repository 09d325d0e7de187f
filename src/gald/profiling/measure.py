"""Cost of one pass through a module: multiply-adds, memory and time."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gald.model.network import Network
from gald.profiling.flops import MacCounter, parts
from gald.profiling.memory import TensorMemoryTracker


class PassCost(NamedTuple):
    """Cost of one pass: multiply-adds / 1e9, median milliseconds, peak memory above the start."""

    gmacs: float
    ms: float
    mib: float


class CostMeter:
    """Meter for passes on one device at one precision.

    Args:
        device: device of the modules and inputs.
        dtype: data type of autocast, or None for no autocast.
        rounds: number of timed passes; the median is reported.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None, rounds: int) -> None:
        self.device = device
        self.dtype = dtype
        self.rounds = rounds
        self.memory = (
            "peak of CUDA's allocator above weights and inputs, including workspaces"
            if device.type == "cuda"
            else "peak of live tensors above weights and inputs, without buffers inside kernels"
        ) + "; in training including tensors saved for backward and gradients"

    def record(
        self, model: Network, whole: Callable[..., Any], image: Tensor
    ) -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
        """Return each part that a pass through the whole network calls, with its inputs."""
        calls: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda module, inputs: calls.update({name: (module, inputs)})

        hooks = [m.register_forward_pre_hook(keep(name)) for name, m in parts(model).items()]
        with torch.no_grad(), self._autocast():
            whole(image)
        for hook in hooks:
            hook.remove()
        return calls

    def measure(
        self, module: nn.Module, call: Callable[..., Any], inputs: tuple[Any, ...], phase: str
    ) -> PassCost:
        """Measure the cost of one call; in phase `train` including its backward pass."""
        training = phase == "train"
        detached = _detach(inputs, training)
        sources = [t for t in (*module.parameters(), *_tensors(detached)) if t.requires_grad]

        def forward() -> list[Tensor]:
            with torch.set_grad_enabled(training), self._autocast():
                return [t for t in _tensors(call(*detached)) if t.requires_grad]

        # Gradients from later parts; created before the measurement, so that they are not counted.
        incoming = [torch.ones_like(t) for t in forward()]

        def run_pass() -> None:
            outputs = forward()
            if outputs:
                torch.autograd.grad(outputs, sources, incoming, allow_unused=True)

        with MacCounter() as counter:
            run_pass()
        peak = self._peak(
            run_pass, [*module.parameters(), *module.buffers(), *_tensors(detached), *incoming]
        )
        times = []
        for _ in range(self.rounds):
            self._synchronise()
            start = time.perf_counter()
            run_pass()
            self._synchronise()
            times.append(1000 * (time.perf_counter() - start))
        return PassCost(counter.macs / 1e9, statistics.median(times), peak / 2**20)

    def _peak(self, run_pass: Callable[[], None], outside: list[Tensor]) -> int:
        if self.device.type != "cuda":
            with TensorMemoryTracker(outside) as memory:
                run_pass()
            return memory.peak
        self._synchronise()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run_pass()
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


def _detach(value: Any, grad: bool) -> Any:
    """Return the inputs without history; with `grad`, floating-point inputs require gradients."""
    if isinstance(value, Tensor):
        if not (grad and value.is_floating_point()):
            return value.detach()
        # A view, because the counter cannot follow gradients into a leaf.
        return value.detach().requires_grad_().view_as(value)
    return tuple(_detach(v, grad) for v in value) if isinstance(value, tuple | list) else value
