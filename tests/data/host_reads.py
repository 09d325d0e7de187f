"""Count what makes a host wait for a GPU: reads from the device, and copies to it."""

from collections import Counter

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operations with a result that the host needs: a number, or a shape that depends on values.
READS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "repeat_interleave",
}
BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}


class HostReads(TorchDispatchMode):
    """Within it, `counts` counts the operations that read a device, by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition("::")[2].partition(".")[0]
        if name in READS or name.lstrip("_").startswith("unique") or _by_mask(name, args):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def _by_mask(name, args):
    return name in BY_MASK and any(i is not None and i.dtype == torch.bool for i in args[1])


class PretendedGpu(TorchDispatchMode):
    """Within it, tensors on "cuda" have no values, so that reading one is an error.

    Attributes:
        copies: copies from the host to the device, each of which waits.
    """

    def __init__(self):
        super().__init__()
        self.copies = []
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __enter__(self):
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {one.device.type for one in args if isinstance(one, torch.Tensor)}
        to_device = isinstance(result, torch.Tensor) and result.device.type == "cuda"
        if "copy" in function.name() and to_device and "cpu" in devices:
            self.copies.append(tuple(result.shape))
        return result
