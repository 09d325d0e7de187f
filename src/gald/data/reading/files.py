"""Reading of files, also inside of zip files.

A path may lead through a zip file: `root/train2017.zip/train2017/1.jpg`. So datasets can stay as
they were downloaded, and a message names the file inside the archive.
"""

import os
import zipfile
import zlib
from pathlib import Path

from gald.data.reading.sample_error import SampleError
from gald.run.limits import refuse_above

_ARCHIVES: dict[tuple[int, Path], zipfile.ZipFile] = {}


def read_bytes(path: Path) -> bytes:
    """Read a file, also inside of a zip."""
    archive, member = split_archive(path)
    try:
        if archive is None:
            _refuse_bytes(path.stat().st_size, path)
            return path.read_bytes()
        _refuse_bytes(open_archive(archive).getinfo(member).file_size, path)
        return open_archive(archive).read(member)
    except KeyError:
        raise SampleError(f"{archive} has no {member}; download the archive again") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise SampleError(f"cannot read {path} ({error}); download {archive} again") from None


def _refuse_bytes(size: int, path: Path) -> None:
    words = "has {0} bytes, and a file of a dataset may have {1} MB"
    try:
        refuse_above(size, str(path), words, "GALD_MAX_FILE_MB", 10**6, "replace it")
    except ValueError as error:
        raise SampleError(str(error)) from None


def is_dir(path: Path) -> bool:
    """Return whether a folder exists, also inside of a zip; a zip itself counts as a folder."""
    archive, inside = split_archive(path)
    if archive is None:
        return path.is_dir()
    names = open_archive(archive).namelist()
    return not inside or any(name.startswith(f"{inside}/") for name in names)


def is_file(path: Path) -> bool:
    """Return whether a file exists, also inside of a zip."""
    archive, member = split_archive(path)
    return path.is_file() if archive is None else member in open_archive(archive).NameToInfo


def fingerprint(path: Path) -> str:
    """Return size and times of a file, or size and checksum of a file inside of a zip.

    Tools that copy can set the time of modification back; the time of the last change of the entry
    (ctime) they cannot set.
    """
    archive, member = split_archive(path)
    if archive is None:
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    info = open_archive(archive).getinfo(member)
    return f"{info.file_size} {info.CRC}"


def file_size(path: Path) -> int:
    """Return the size in bytes of a file, also inside of a zip.

    Raises:
        SampleError: the file cannot be read.
    """
    archive, member = split_archive(path)
    if archive is not None:
        return open_archive(archive).getinfo(member).file_size
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None


def split_archive(path: Path) -> tuple[Path | None, str]:
    """Split a path into the zip that it leads through, if any, and the path inside."""
    if ".zip" in str(path).lower():
        for place in (*reversed(path.parents), path):
            if place.suffix.lower() == ".zip" and place.is_file():
                rest = path.relative_to(place).as_posix()
                return place, "" if rest == "." else rest
    return None, ""


def open_archive(archive: Path) -> zipfile.ZipFile:
    """Open an archive once per process: forked processes would share one file position."""
    key = (os.getpid(), archive)
    if key not in _ARCHIVES:
        try:
            _ARCHIVES[key] = zipfile.ZipFile(archive)
        except (zipfile.BadZipFile, NotImplementedError, ValueError):  # all of damaged bytes
            raise SampleError(
                f"{archive} is not a complete zip; download or copy it again"
            ) from None
    return _ARCHIVES[key]


def unreadable(path: Path, error: OSError) -> SampleError:
    """Return the error about a file that cannot be opened."""
    if path.is_symlink() and not path.exists():
        return SampleError(
            f"{path} is a link to {path.readlink()}, which does not exist; restore the target or "
            "remove the link"
        )
    reason = error.strerror or str(error)
    return SampleError(f"cannot read {path} ({reason}); restore the file")
