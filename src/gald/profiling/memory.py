"""How much memory a computation needs, on devices that keep no account of their own."""

import weakref
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class TensorMemoryTracker(TorchDispatchMode):
    """Follows the storage of every tensor made inside it, and remembers the peak in bytes.

    What the backward pass keeps and the gradients it makes are included; what existed before
    (weights, inputs) is not, nor are buffers inside a kernel, which no tensor shows.

    Args:
        outside: tensors that exist already.
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
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        self.peak = max(self.peak, sum(self.live.values()))
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage.data_ptr()
        if key and key not in self.outside and key not in self.live:
            self.live[key] = storage.nbytes()
            weakref.finalize(storage, self.live.pop, key, None)
