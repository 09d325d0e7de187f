"""Resumable download of a file with a checksum, and complete extraction of an archive."""

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import urllib.request as web
import zipfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PureWindowsPath
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rich import progress
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from gald.errors import disk_remedy
from gald.progress import Lines
from gald.run.atomic import sync
from gald.run.limits import refuse_above, refuse_unpacked

_TIMEOUT = 30  # seconds without a byte
_BLOCK = 2**18
_LONGEST = 255  # bytes of a file's name that disks accept
_OTHER = "download the archive from its owners again"
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # zipfile: unknown compression
    RuntimeError,  # zipfile: encrypted
)


class DownloadError(ValueError):
    """Error about a failed download or extraction, as one sentence with the remedy."""


def download(url: str, path: Path, digest: str) -> None:
    """Download a file, or the missing rest of it, and keep it only if its digest is right.

    Bytes are appended to `PATH.part`, from which a repeated call resumes; PATH appears when it is
    complete. If the file on the server changes meanwhile, or the server sends another range, the
    digest differs and the next call starts again. An existing PATH is checked and not downloaded.

    Args:
        url: http or https.
        path: path of the file; missing folders are created.
        digest: `sha1:`, `sha256:` or `md5:` and the hexadecimal digits of the whole file.

    Raises:
        DownloadError: the network or the disk fails, or the digest differs.
        ValueError: the url is neither http nor https.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is neither http nor https; use the address of a web server")
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            if (actual := _digest(path, digest)) != digest:
                raise DownloadError(
                    f"{path} has {actual}, expected {digest}; move it away and repeat the command"
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, path, part)
        if (actual := _digest(part, digest)) != digest:
            part.unlink()
            raise DownloadError(
                f"the file from {url} has {actual}, expected {digest}, and was deleted; repeat the "
                f"command, or save the right file as {path}"
            )
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise _disk_error(error, part) from None


def _fetch(url: str, path: Path, part: Path) -> None:
    """Append the missing bytes to the partial file."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _request(url, start)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # no bytes after `start`: the partial file may be complete
            return
        raise _network_error(url, path, f"HTTP {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise _network_error(url, path, error) from None
    with response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the server does not support ranges and sends the whole file
        total = None if response.length is None else start + response.length
        _check_space(part, response.length or 0)
        with part.open("ab" if start else "wb") as file, _download_bar() as bar:
            task = bar.add_task(escape(f"fetch {path.name}"), total=total, completed=start)
            lines, done = Lines(f"fetch {path.name}", total, decimal), start
            while block := _read(response, url, path):
                file.write(block)
                bar.advance(task, len(block))
                done += len(block)
                lines.show(done)
            file.flush()
            os.fsync(file.fileno())
        size = part.stat().st_size
        if total is not None and size < total:
            ended = f"the connection ended after {decimal(size)} of {decimal(total)}"
            raise _network_error(url, path, ended)


def _request(url: str, start: int) -> HTTPResponse:
    # Only these handlers: urllib's default opener would also follow a redirection to ftp.
    opener = web.OpenerDirector()
    for handler in (
        web.ProxyHandler,
        web.HTTPHandler,
        web.HTTPSHandler,
        web.HTTPDefaultErrorHandler,
        web.HTTPRedirectHandler,
        web.HTTPErrorProcessor,
        web.UnknownHandler,
    ):
        opener.add_handler(handler())
    headers = {"User-Agent": "gald"} | ({"Range": f"bytes={start}-"} if start else {})
    return opener.open(web.Request(url, headers=headers), timeout=_TIMEOUT)


def _read(response: HTTPResponse, url: str, path: Path) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, HTTPException) as error:
        raise _network_error(url, path, error) from None


def _digest(path: Path, expected: str) -> str:
    """Compute the digest of a file with the algorithm of the expected one."""
    name = expected.partition(":")[0]
    digest = hashlib.new(name, usedforsecurity=False)  # FIPS systems forbid sha1 for security
    title = f"check {path.name}"
    lines = Lines(title, path.stat().st_size, decimal)
    with progress.open(path, "rb", description=escape(title), console=_console()) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            lines.show(file.tell())
    return f"{name}:{digest.hexdigest()}"


def end_killed(archive: Path, folder: Path) -> None:
    """Remove what `extract` left if it was killed after FOLDER was complete.

    An archive without FOLDER.partial beside it may be of the user, and stays.

    Args:
        archive: as in `extract`.
        folder: as in `extract`.
    """
    partial = _partial(folder)
    if folder.exists() and partial.exists():
        archive.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def extract(archive: Path, folder: Path, top: str = "", keep: bool = True) -> None:
    """Extract a zip, tar or tar.gz so that FOLDER appears complete or not at all.

    Members are written to `FOLDER.partial`, which is renamed at the end. Only plain files and
    folders are accepted: no absolute name, no `..` and no link, so that nothing is written outside
    of it.

    Args:
        archive: the file.
        folder: the folder to create; it must not exist.
        top: the folder in the archive that becomes FOLDER; everything beside it is dropped.
        keep: whether to keep the archive.

    Raises:
        DownloadError: the archive is damaged, a member is not accepted, it holds more than
            GALD_MAX_UNPACKED_MB, GALD_MAX_MEMBERS (2000000) or GALD_MAX_FOLDERS (32) folders inside
            each other, or the disk fails.
    """
    if folder.exists():
        raise DownloadError(f"{folder} exists; move it away to extract {archive} in its place")
    partial = _partial(folder)
    try:
        if partial.exists():
            shutil.rmtree(partial)  # from an extraction that was killed
        partial.mkdir(parents=True)
        _check_space(partial, archive.stat().st_size)
        _unpack(archive, partial)
        if not (partial / top).is_dir():
            raise DownloadError(f"{archive} has no folder {top}; replace it by the right archive")
        if hasattr(os, "sync"):
            os.sync()  # fsync of tens of thousands of small files would take minutes
        (partial / top).rename(folder)
        sync(folder.parent)
        if not keep:
            archive.unlink()
    except _DAMAGED as error:
        raise DownloadError(
            f"{archive} is damaged ({error}); delete it and repeat the command to download it again"
        ) from None
    except OSError as error:
        raise _disk_error(error, folder) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Member(NamedTuple):
    """Entry of an archive; links and devices are not folders and have no content."""

    name: str
    is_folder: bool
    content: IO[bytes] | None


def _unpack(archive: Path, folder: Path) -> None:
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    total = archive.stat().st_size
    with archive.open("rb") as file, progress.Progress(console=_console()) as bar:
        task = bar.add_task(escape(f"extract {archive.name}"), total=total)
        lines = Lines(f"extract {archive.name}", total, decimal)
        for number, (name, is_folder, content) in enumerate(members(file, archive), 1):
            _refuse_many(number, archive)
            windows = PureWindowsPath(name)  # handles both separators, and drives
            if windows.anchor or ".." in windows.parts:
                raise _refusal(archive, name, "lies outside of the archive's folder")
            _refuse_deep(len(windows.parts) - 1, archive)
            if any(len(os.fsencode(part)) > _LONGEST for part in windows.parts):
                raise _refusal(archive, f"{name[:40]}...", f"has a name above {_LONGEST} bytes")
            path = folder / name
            if is_folder:
                path.mkdir(parents=True, exist_ok=True)
            elif content is None:
                raise _refusal(archive, name, "is a link or a device")
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with content, path.open("wb") as target:
                    shutil.copyfileobj(content, target)
            bar.update(task, completed=file.tell())
            lines.show(file.tell())
        bar.update(task, completed=total)


def _refuse_many(members: int, archive: Path) -> None:
    _refuse(members, archive, "has more than {1} members", "GALD_MAX_MEMBERS")


def _refuse_deep(folders: int, archive: Path) -> None:
    words = "has a file in {0} folders inside each other, and may have {1}"
    _refuse(folders, archive, words, "GALD_MAX_FOLDERS")


def _refuse(number: int, archive: Path, words: str, variable: str) -> None:
    try:
        refuse_above(number, str(archive), words, variable, 1, _OTHER)
    except ValueError as error:
        raise DownloadError(str(error)) from None


def _refuse_bomb(unpacked: int, path: Path, whole: bool) -> None:
    try:
        refuse_unpacked(unpacked, path.stat().st_size, str(path), _OTHER, whole)
    except ValueError as error:
        raise DownloadError(str(error)) from None


class _Bounded:
    """Reader of the bytes of a tar, which refuses to read more than the bound.

    tarfile reads a header of any size into memory.
    """

    def __init__(self, source: IO[bytes], path: Path) -> None:
        self.source = source
        self.path = path
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        """Read that many bytes."""
        _refuse_bomb(self.position + max(0, size), self.path, whole=False)
        data = self.source.read(size)
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Skip to a later position, by reading; tarfile does not go back."""
        if whence != os.SEEK_SET or offset < self.position:
            raise tarfile.ReadError("its members overlap")
        while self.position < offset and self.read(min(_BLOCK, offset - self.position)):
            pass
        return self.position

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        return self.position


def _zip_members(file: IO[bytes], path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        # zipfile reads no more of a member than it states here
        total = sum(info.file_size for info in archive.infolist())
        _refuse_bomb(total, path, whole=True)
        _check_space(path, total)
        for info in archive.infolist():
            link = stat.S_ISLNK(info.external_attr >> 16)
            content = None if link or info.is_dir() else archive.open(info)
            yield _Member(info.filename, info.is_dir(), content)


def _tar_members(file: IO[bytes], path: Path) -> Iterator[_Member]:
    source: Any = gzip.GzipFile(fileobj=file) if path.name.endswith(".gz") else file
    bounded: Any = _Bounded(source, path)
    with tarfile.open(fileobj=bounded, mode="r:") as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isfile() else None
            yield _Member(info.name, info.isdir(), content)
        # An archive ends with an empty block; tarfile does not report one that is truncated between
        # two members.
        if archive.fileobj is None or archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        while archive.fileobj.read(_BLOCK):
            pass  # gzip verifies its checksum at the end of the file


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DownloadError(
            f"{path} needs {decimal(needed)} but its disk has {decimal(free)} left; free disk "
            "space, or choose another folder with data.root=FOLDER"
        )


def _network_error(url: str, path: Path, why: Exception | str) -> DownloadError:
    reason = why.reason if isinstance(why, URLError) else why
    text = str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
    return DownloadError(
        f"could not download {url} ({text}); repeat the command, which resumes where it stopped, "
        f"or download it in another way and save it as {path}"
    )


def _disk_error(error: OSError, path: Path) -> DownloadError:
    return DownloadError(
        f"cannot read or write {error.filename or path} ({error.strerror or error}); "
        f"{disk_remedy(error)}, or choose another folder with data.root=FOLDER, and repeat the "
        "command"
    )


def _refusal(archive: Path, name: str, why: str) -> DownloadError:
    return DownloadError(
        f"{archive} was not extracted, because its member {name} {why}; download the archive from "
        "its owners again"
    )


def _download_bar() -> progress.Progress:
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=_console(),
    )


def _console() -> Console:
    return Console(markup=False, emoji=False, stderr=True)
