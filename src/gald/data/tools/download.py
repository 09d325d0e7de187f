"""Fetches a file so that a stop loses little, and unpacks an archive whole or not at all."""

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
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rich import progress
from rich.console import Console
from rich.filesize import decimal

_SILENCE = 30  # seconds without a byte, after which the server counts as lost
_BLOCK = 2**18
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # zipfile: a compression it does not know
    RuntimeError,  # zipfile: encrypted
)


class DownloadError(ValueError):
    """A file that could not be fetched or unpacked, as one sentence with the remedy."""


def download(url: str, path: Path, digest: str) -> None:
    """Fetch a file, or what is still missing of it, and keep it only if its digest is right.

    Bytes go to `PATH.part`, where a repeated call goes on; PATH appears once it is whole. That the
    server's file changed in between, or that it sent another range, shows in the digest, and the
    next call begins anew. A PATH that is there already is checked and not fetched.

    Args:
        url: http or https.
        path: where the file shall be; folders above it are made.
        digest: `sha1:`, `sha256:` or `md5:` and the hexadecimal digits of the whole file.

    Raises:
        DownloadError: the network, the disk, or another digest.
        ValueError: the url is neither http nor https.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is neither http nor https; give the address of a web server")
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            if (found := _digest(path, digest)) != digest:
                raise DownloadError(
                    f"{path} has {found}, expected {digest}; move it away and repeat the command"
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, path, part)
        if (found := _digest(part, digest)) != digest:
            part.unlink()
            raise DownloadError(
                f"what {url} sent has {found}, expected {digest}, and was deleted; repeat the "
                f"command, or save the right file as {path}"
            )
        part.replace(path)
    except OSError as error:
        raise _disk_error(error, part) from None


def _fetch(url: str, path: Path, part: Path) -> None:
    """Append what is missing to the partial file."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _request(url, start)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # nothing lies beyond: the partial file may be whole
            return
        raise _network_error(url, path, f"HTTP {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise _network_error(url, path, error) from None
    with response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the server knows no ranges and sends everything
        total = None if response.length is None else start + response.length
        _check_space(part, response.length or 0)
        with part.open("ab" if start else "wb") as file, _download_bar() as bar:
            task = bar.add_task(f"fetch {path.name}", total=total, completed=start)
            while block := _read(response, url, path):
                file.write(block)
                bar.advance(task, len(block))
            file.flush()
            os.fsync(file.fileno())
        size = part.stat().st_size
        if total is not None and size < total:
            ended = f"the connection ended after {decimal(size)} of {decimal(total)}"
            raise _network_error(url, path, ended)


def _request(url: str, start: int) -> HTTPResponse:
    # Only these: urllib's usual opener would follow a redirection to ftp as well.
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
    return opener.open(web.Request(url, headers=headers), timeout=_SILENCE)


def _read(response: HTTPResponse, url: str, path: Path) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, HTTPException) as error:
        raise _network_error(url, path, error) from None


def _digest(path: Path, like: str) -> str:
    name = like.partition(":")[0]
    found = hashlib.new(name, usedforsecurity=False)  # some machines forbid sha1 for secrets
    with progress.open(path, "rb", description=f"check {path.name}", console=_console()) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return f"{name}:{found.hexdigest()}"


def extract(archive: Path, folder: Path, top: str = "") -> None:
    """Unpack a zip, tar or tar.gz so that FOLDER appears whole or not at all.

    Members go to `FOLDER.partial`, which is renamed at the end. Only plain files and folders are
    accepted: no absolute name, no `..`, no link, so that nothing is written anywhere else.

    Args:
        archive: the file.
        folder: what shall appear; it must not be there yet.
        top: the folder in the archive that becomes FOLDER; what lies beside it is dropped.

    Raises:
        DownloadError: a damaged archive, a member that is not accepted, or the disk.
    """
    if folder.exists():
        raise DownloadError(f"{folder} exists; move it away to extract {archive} in its place")
    partial = folder.with_name(folder.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # an extraction that was killed
        partial.mkdir(parents=True)
        _check_space(partial, archive.stat().st_size)
        _unpack(archive, partial)
        if not (partial / top).is_dir():
            raise DownloadError(f"{archive} holds no folder {top}; replace it by the right archive")
        if hasattr(os, "sync"):
            os.sync()  # one by one, tens of thousands of small files would take minutes
        (partial / top).rename(folder)
    except _DAMAGED as error:
        raise DownloadError(
            f"{archive} is damaged ({error}); delete it and repeat the command to fetch it again"
        ) from None
    except OSError as error:
        raise _disk_error(error, folder) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Member(NamedTuple):
    """One entry of an archive; neither a folder nor with content where it is a link or a device."""

    name: str
    is_folder: bool
    content: IO[bytes] | None


def _unpack(archive: Path, folder: Path) -> None:
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    total = archive.stat().st_size
    with archive.open("rb") as file, progress.Progress(console=_console()) as bar:
        task = bar.add_task(f"extract {archive.name}", total=total)
        for name, is_folder, content in members(file):
            windows = PureWindowsPath(name)  # knows both separators, and drives
            if windows.anchor or ".." in windows.parts:
                raise _refusal(archive, name, "lies outside of the archive's folder")
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
        bar.update(task, completed=total)


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            link = stat.S_ISLNK(info.external_attr >> 16)
            content = None if link or info.is_dir() else archive.open(info)
            yield _Member(info.filename, info.is_dir(), content)


def _tar_members(file: IO[bytes]) -> Iterator[_Member]:
    mode = "r:gz" if file.name.endswith(".gz") else "r:"
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isfile() else None
            yield _Member(info.name, info.isdir(), content)
        # An archive ends with an empty block; tarfile takes one that was cut between two members
        # for whole.
        if archive.fileobj is None or archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        while archive.fileobj.read(_BLOCK):
            pass  # gzip compares its checksum at the very end


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DownloadError(
            f"{path} needs {decimal(needed)} but its disk has {decimal(free)} left; make room, or "
            "choose another folder with data.root=FOLDER"
        )


def _network_error(url: str, path: Path, why: Exception | str) -> DownloadError:
    reason = why.reason if isinstance(why, URLError) else why
    said = str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
    return DownloadError(
        f"could not fetch {url} ({said}); repeat the command, which goes on where it stopped, or "
        f"fetch it in another way and save it as {path}"
    )


def _disk_error(error: OSError, path: Path) -> DownloadError:
    return DownloadError(
        f"cannot read or write {error.filename or path} ({error.strerror or error}); make room or "
        "choose another folder with data.root=FOLDER, and repeat the command"
    )


def _refusal(archive: Path, name: str, why: str) -> DownloadError:
    return DownloadError(
        f"{archive} was not extracted, because its member {name} {why}; fetch the archive from its "
        "owners again"
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
    return Console(stderr=True)
