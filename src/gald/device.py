"""Choice of the compute device."""

import torch

_MOST = 8  # more would only raise the memory: each holds images


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
