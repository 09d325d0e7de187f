"""Choice of the compute device."""

import torch


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
