"""Values on their way from a device to the host, and sums over the processes of a run."""

import torch
from torch import Tensor


class ToHost:
    """Copy of a tensor that a GPU makes while the host continues.

    Reading a number from a GPU waits until all work before it is done. A copy that is read one
    optimizer step later waits for nothing.

    Args:
        values: the tensor; later changes of it do not matter.
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values.detach().to("cpu", non_blocking=values.is_cuda, copy=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> Tensor:
        """Return the copy, once it is made."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum a tensor over the processes of the run, in place; the host does not wait for a GPU.

    `reduce` of a strategy of Lightning does the same behind a barrier, where every host waits for
    its GPU and for all others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values
