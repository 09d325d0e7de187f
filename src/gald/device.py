"""Where to compute: `auto`, or what this machine has."""

import torch


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name, `auto` the best there is.

    Raises:
        ValueError: this machine has no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return found or torch.device("cpu")
    here = ["cpu"] + ([found.type] if found else [])
    kind, _, index = name.partition(":")
    count = torch.accelerator.device_count() if found and kind == found.type else 1
    if kind not in here or (index and not (index.isdecimal() and int(index) < count)):
        raise ValueError(f"device is {name!r}; this machine has {' and '.join(here)}")
    return torch.device(name)
