"""Provenance of a result: package versions, git commit, and SHA-256 of files and data."""

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # takes seconds to import
    from torch import Tensor


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that can affect a result, as flat keys."""
    packages = ("gald", "torch", "pytorch-lightning", "timm", "albumentations")
    return {f"version/{name}": importlib.metadata.version(name) for name in packages}


@cache
def commit() -> str | None:
    """Return the git commit of the code, plus `+` if files changed; None outside its checkout.

    An installed copy has none, also in the checkout of another project. It is looked up once in a
    process, because its code does not change later either.
    """

    def git(*arguments: str) -> str:
        where = Path(__file__).parent
        done = subprocess.run(
            ["git", *arguments], cwd=where, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def sha256(value: Any) -> str:
    """Return the SHA-256 of a file (if given a Path), or of plain data as JSON."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_tensors(digest: "hashlib._Hash", tensors: "Mapping[str, Tensor]") -> None:
    """Add names, types, shapes and bytes of tensors to a hash, whatever their device and layout."""
    import torch

    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
