"""Writing of checkpoints for Lightning: atomically, and with a checksum."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from typing_extensions import override

from gald.run.atomic import write_bytes
from gald.run.checksum import seal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Plugin that writes every checkpoint of a training beside its place and renames it.

    Lightning's own writes to TMPDIR first, which may be full or on another disk.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        save_checkpoint(checkpoint, Path(path))


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a file of `torch.save` with a checksum; it appears complete or not at all.

    Raises:
        OSError: the disk is full or cannot be written; an old file is still there.
    """
    buffer = io.BytesIO()  # on a full disk torch's own writer ends the process
    torch.save(content, buffer)
    seal(buffer)
    write_bytes(path, buffer.getbuffer())
