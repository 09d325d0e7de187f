"""Peak memory of a computation, for devices without memory statistics of their own."""

import weakref
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class TensorMemoryTracker(TorchDispatchMode):
    """Tracker of the storage of every tensor created inside its context; records the peak in bytes.

    Tensors saved for the backward pass and gradients are included. Tensors that existed before
    (weights, inputs) are not, nor are buffers inside a kernel, which belong to no tensor.

    Args:
        outside: tensors that existed before.
    """

    def __init__(self, outside: list[Tensor]) -> None:
        super().__init__()
        self.outside = {t.untyped_storage().data_ptr() for t in outside}
        self.live: dict[int, int] = {}
        self.peak = 0

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for tensor in outputs if isinstance(outputs, tuple | list) else (outputs,):
            if isinstance(tensor, Tensor):
                self._track(tensor.untyped_storage())
        self.peak = max(self.peak, sum(self.live.values()))
        return outputs

    def _track(self, storage: torch.UntypedStorage) -> None:
        key = storage.data_ptr()
        if key and key not in self.outside and key not in self.live:
            self.live[key] = storage.nbytes()
            weakref.finalize(storage, self.live.pop, key, None)
