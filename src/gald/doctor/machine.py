"""What a machine offers: the driver of its GPUs, free memory and free disk."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_CGROUPS = (  # limit and use of a container's memory, in versions 2 and 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


class Driver(NamedTuple):
    """NVIDIA's driver.

    Attributes:
        version: of the driver; empty if unknown.
        cuda: newest CUDA that it runs, major and minor.
    """

    version: str
    cuda: tuple[int, int]


def find_driver() -> Driver | None:
    """Ask nvidia-smi for the driver, or its library where there is no such program."""
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20)
        text = done.stdout
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    cuda = re.search(r"CUDA(?: \w+)? Version\s*:\s*(\d+)\.(\d+)", text)
    if cuda:
        version = re.search(r"Driver Version\s*:\s*([\d.]+)", text)
        return Driver(version[1] if version else "", (int(cuda[1]), int(cuda[2])))
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):  # not installed, or not a driver
        return None
    if failed or not number.value:
        return None
    return Driver("", (number.value // 1000, number.value % 1000 // 10))


def memory(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Return the free and the whole memory in bytes, within the limit of a container.

    Args:
        root: folder with the `proc` and `sys` of the system.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
        free, whole = sizes.get("MemAvailable"), sizes.get("MemTotal")
    except (OSError, ValueError, IndexError):  # not Linux
        names = getattr(os, "sysconf_names", {})
        known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None
        return None, whole
    for limit_file, use_file in _CGROUPS:
        try:
            folder = root / "sys/fs/cgroup"
            limit = int((folder / limit_file).read_text())
            use = int((folder / use_file).read_text())
        except (OSError, ValueError):  # no container, or no limit: max
            continue
        if whole is not None and limit < whole:
            whole, free = limit, min(free or limit, max(0, limit - use))
    return free, whole


def free_disk(folder: Path) -> int | None:
    """Return the bytes that may still be written to a folder, which need not exist yet."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def gib(size: int) -> str:
    """Return a size as text."""
    return f"{size / 2**30:.1f} GiB"
