"""The compute device: its choice, the threads beside it, the memory of a CPU."""

import ctypes
import functools
import os

import torch
from torch import Tensor

_MOST = 8  # more would only raise the memory: each holds images
# Parameters of glibc's mallopt: the free memory above which it trims, -1 for never, and the number
# of blocks that it maps one by one.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")


def threads_beside() -> int:
    """Return the number of threads for work beside the network: as many as torch uses, at most 8.

    So a process that is given one core, with OMP_NUM_THREADS=1, has one such thread.
    """
    return min(_MOST, torch.get_num_threads())


def pick_device(name: str = "auto") -> torch.device:
    """Return the device with this name; `auto` selects the accelerator, or the CPU without one.

    Raises:
        ValueError: this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    available = ["cpu"] + ([accelerator.type] if accelerator else [])
    kind, _, index = name.partition(":")
    count = torch.accelerator.device_count() if accelerator and kind == accelerator.type else 1
    if kind not in available or (index and not (index.isdecimal() and int(index) < count)):
        raise ValueError(
            f"device is {name!r}, but this machine has only {' and '.join(available)}; "
            "choose one of these, or auto"
        )
    return torch.device(name)


class _Reuse:
    """The memory that this process keeps for the next pass through the network."""

    size: tuple[int, ...] | None = None


def reuse_memory(image: Tensor) -> None:
    """Let the next tensors take the memory of those that a pass through the network has freed.

    glibc returns a large tensor to the system when it is freed, and every page of the next one is
    a page fault: up to a quarter of the CPU time of a training step. From the first call on the
    process keeps its memory, while images have one size. When the size changes it returns what is
    free, because tensors of many sizes leave gaps that add up.

    Nothing happens on another device, without glibc, or where the environment sets `MALLOC_...`
    or `GLIBC_TUNABLES`. Numbers never change.

    Args:
        image: the input of the pass, of any shape.
    """
    if image.device.type != "cpu" or image.shape == _Reuse.size:
        return
    if (glibc := _glibc()) is None:
        return
    if _Reuse.size is None:
        glibc.mallopt(_MMAP_MAX, 0)
        glibc.mallopt(_TRIM_THRESHOLD, -1)
    else:
        glibc.malloc_trim(0)
    _Reuse.size = tuple(image.shape)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and the user has not set its allocator."""
    if any(name.startswith(_OWN_SETTINGS) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
