"""Checksums inside zip files, which the files of `torch.save` and numpy's `.npz` are.

The checksum is of every byte before it, and stands in the comment at the end of the zip, which
other programs ignore.
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
    """Append the checksum to a whole zip in memory."""
    tail = content.getbuffer()[-_END:]
    assert tail[:4] == b"PK\5\6", "a zip without a comment"
    del tail
    content.seek(-2, io.SEEK_END)
    content.write(_LENGTH.to_bytes(2, "little"))
    digest = hashlib.sha256(content.getbuffer()).hexdigest()
    content.write(_MARK + digest.encode())


def find_damage(path: Path) -> str | None:
    """Return what is wrong with a zip; None if it is whole.

    A zip without our checksum is checked by the checksums of its members.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _LENGTH))
        mark = file.read()
        if mark.startswith(_MARK):
            file.seek(0)
            digest, rest = hashlib.sha256(), size - _LENGTH
            while block := file.read(min(_BLOCK, rest)):
                digest.update(block)
                rest -= len(block)
            if digest.hexdigest().encode() != mark[len(_MARK) :]:
                return "its checksum is not the one that was written"
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
