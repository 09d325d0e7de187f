"""Checksums inside files of `torch.save` and numpy, at their end, which other programs ignore.

The checksum is of every byte before it. Files of `torch.save` and numpy's `.npz` are zip files, and
it is their comment.
"""

import hashlib
import io
import zipfile
from pathlib import Path

_MARK = b"gald sha256 "
_LENGTH = len(_MARK) + 64
_END = 22  # bytes of a zip's last record without a comment, which ends in the comment's length
_BLOCK = 2**20
_EXPANSION = 100  # times the size of the file; what expands more is not ours and not checked


def seal(content: io.BytesIO) -> None:
    """Append the checksum to a whole file in memory: a zip, or numpy's `.npy`."""
    if bytes(content.getbuffer()[-_END:][:4]) == b"PK\5\6":
        content.seek(-2, io.SEEK_END)
        content.write(_LENGTH.to_bytes(2, "little"))
    content.seek(0, io.SEEK_END)
    digest = hashlib.sha256(content.getbuffer()).hexdigest()
    content.write(_MARK + digest.encode())


def find_damage(path: Path) -> str | None:
    """Return what is wrong with a file; None if it is whole, or has no checksum.

    A zip without our checksum is checked by the checksums of its members.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * _LENGTH))
        tail = file.read()
        mark = tail[-_LENGTH:]
        if _MARK in tail:
            file.seek(0)
            digest, rest = hashlib.sha256(), size - _LENGTH
            while block := file.read(min(_BLOCK, rest)):
                digest.update(block)
                rest -= len(block)
            if digest.hexdigest().encode() != mark[len(_MARK) :]:
                return "its checksum is not the one that was written"
            return None
        file.seek(0)
        if file.read(2) != b"PK":
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(member.file_size for member in archive.infolist())
            damaged = archive.testzip() if expanded < _EXPANSION * size else None
            if archive.comment or damaged:
                return "its checksum is not the one that was written"
    except zipfile.BadZipFile as error:
        return (
            str(error) if zipfile.is_zipfile(path) else f"the file is truncated after {size} bytes"
        )
    except Exception as error:  # zipfile raises many kinds for damaged bytes
        return f"it is damaged: {error}"
    return None
