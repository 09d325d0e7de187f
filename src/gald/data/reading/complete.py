"""Images that are complete: decoders would fill a missing part with grey."""

import os
import re
from pathlib import Path

from gald.data.reading.files import read_bytes, split_archive, unreadable
from gald.data.reading.header import JPEG, PNG, read_header
from gald.data.reading.sample_error import SampleError

_PNG_END = b"IEND\xaeB`\x82"
# Markers of a jpg with a segment, or its end: within the pixels, 0 and restarts follow 0xff too.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_ENDS = 1 << 16  # bytes at the start and at the end of a file that `read_head` reads


def read_head(path: Path) -> bytes:
    """Read the start of a file that contains its header; all of it inside of a zip.

    Raises:
        SampleError: the file cannot be read, or is truncated.
    """
    if split_archive(path)[0] is not None:
        return read_complete(path)
    try:
        with path.open("rb") as file:
            head = tail = file.read(_ENDS)
            if len(head) == _ENDS:
                file.seek(-_ENDS, os.SEEK_END)
                tail = file.read()
    except OSError as error:
        raise unreadable(path, error) from None
    complete = not is_truncated(head, tail) and read_header(head) is not None
    # otherwise the end is before a long appendix, or the header after a long block of metadata
    return head if complete else read_complete(path)


def read_complete(path: Path) -> bytes:
    """Read a file that must not be truncated: decoders would fill the missing part with grey."""
    data = read_bytes(path)
    if is_truncated(data, data):
        raise SampleError(f"{path} is truncated ({len(data)} bytes); copy or download it again")
    return data


def is_truncated(head: bytes, tail: bytes) -> bool:
    """Return whether the end of a png or jpg is missing in its last bytes."""
    if head.startswith(PNG):
        return _PNG_END not in tail[-64:] and _PNG_END not in tail
    if head.startswith(JPEG):
        # The end marker must follow the last start of scan: an embedded thumbnail has its own pair.
        return tail.rfind(b"\xff\xd9") <= tail.rfind(b"\xff\xda") and not _reaches_end(head)
    return not head


def _reaches_end(data: bytes) -> bool:
    """Walk a jpg up to its end marker: phones append a video, which may hold any marker."""
    at = 2
    while found := _MARKER.search(data, at):
        if found[1] == b"\xd9":
            return True
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return False
