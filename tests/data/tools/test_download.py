"""A downloaded file or extracted folder is complete and valid, or it does not exist."""

import errno
import hashlib
import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gald.data.tools import download as module
from gald.data.tools.download import DownloadError, download, extract

CONTENT = np.random.default_rng(0).bytes(1_500_000)
SHA1 = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves `content` and records the requested ranges.

    The first `breaks` responses end after `sends` bytes; the connection is closed, or stays open if
    `holds`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"
        self.content = CONTENT
        self.supports_ranges = True
        self.sends_length = True
        self.breaks = 0
        self.sends = 1_000_000
        self.holds = False
        self.status = None
        self.location = None
        self.ranges = []
        self.released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        requested = self.headers["Range"]
        server.ranges.append(requested)
        if server.status:
            self.send_response(server.status)
            if server.location:
                self.send_header("Location", server.location)
            self.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1]) if requested else 0
        if not server.supports_ranges:
            start = 0
        size = len(server.content)
        if start and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        self.send_response(206 if requested and server.supports_ranges else 200)
        if requested and server.supports_ranges:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if server.sends_length:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        body = server.content[start:]
        if server.breaks:
            server.breaks -= 1
            self.wfile.write(body[: server.sends])
            if server.holds:
                server.released.wait(30)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def complain(function, *arguments, **options):
    with pytest.raises(DownloadError) as error:
        function(*arguments, **options)
    sentence = str(error.value)
    assert "\n" not in sentence and ". " not in sentence
    return sentence


def test_file_is_downloaded_into_a_new_folder(server, tmp_path):
    path = tmp_path / "new" / "file.bin"
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT
    assert files(path.parent) == ["file.bin"] and server.ranges == [None]


def test_a_log_file_gets_a_line_now_and_then(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gald.progress.EVERY", 0.0)
    path = tmp_path / "file.bin"
    download(server.url, path, SHA1)
    printed = capsys.readouterr().err
    assert re.search(r"^fetch file\.bin: 1\.\d MB of 1\.5 MB$", printed, flags=re.MULTILINE)
    assert "check file.bin" in printed
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.write(path, "inside.bin")
    extract(archive, tmp_path / "all")
    assert re.search(r"^extract all\.zip: .* of 1\.5 MB$", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_other_digests_are_checked_too(server, tmp_path, name):
    digest = f"{name}:{hashlib.new(name, CONTENT).hexdigest()}"
    download(server.url, tmp_path / "right.bin", digest)
    complain(download, server.url, tmp_path / "wrong.bin", digest[:-1] + "x")
    assert files(tmp_path) == ["right.bin"]


def test_file_of_unknown_length_is_downloaded(server, tmp_path):
    server.sends_length = False
    download(server.url, tmp_path / "file.bin", SHA1)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_existing_file_is_not_downloaded_again(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    download(server.url, path, SHA1)
    assert server.ranges == []


def test_wrong_file_of_the_user_is_named_and_kept(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"mine")
    sentence = complain(download, server.url, path, SHA1)
    assert str(path) in sentence and SHA1 in sentence
    assert f"sha1:{hashlib.sha1(b'mine').hexdigest()}" in sentence
    assert path.read_bytes() == b"mine" and server.ranges == []


def test_dropped_connection_names_both_sizes_and_the_next_call_resumes(server, tmp_path, capsys):
    path = tmp_path / "file.bin"
    server.breaks = 1
    sentence = complain(download, server.url, path, SHA1)
    assert "1.0 MB of 1.5 MB" in sentence and server.url in sentence and str(path) in sentence
    assert files(tmp_path) == ["file.bin.part"]
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT and files(tmp_path) == ["file.bin"]
    assert server.ranges == [None, "bytes=1000000-"]
    assert re.search("fetch file.bin .* 1.5/1.5 MB", capsys.readouterr().err)


def test_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    path = tmp_path / "file.bin"
    path.with_name("file.bin.part").write_bytes(b"x" * 700_000)
    server.supports_ranges = False
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT and server.ranges == ["bytes=700000-"]


def test_complete_partial_file_is_used(server, tmp_path):
    path = tmp_path / "file.bin"
    path.with_name("file.bin.part").write_bytes(CONTENT)
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT and files(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("length", [700_000, 2_000_000])
def test_partial_file_with_other_content_is_dropped_and_downloaded_again(server, tmp_path, length):
    path = tmp_path / "file.bin"
    path.with_name("file.bin.part").write_bytes(b"x" * length)
    assert SHA1 in complain(download, server.url, path, SHA1)
    assert files(tmp_path) == []
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT and server.ranges == [f"bytes={length}-", None]


def test_wrong_digest_names_both_and_leaves_nothing(server, tmp_path):
    server.content = b"<html>please log in</html>"
    sentence = complain(download, server.url, tmp_path / "file.bin", SHA1)
    assert SHA1 in sentence and f"sha1:{hashlib.sha1(server.content).hexdigest()}" in sentence
    assert "repeat the command" in sentence and files(tmp_path) == []


def test_killed_download_leaves_a_partial_file_and_resumes(server, tmp_path):
    path = tmp_path / "file.bin"
    part = tmp_path / "file.bin.part"
    server.breaks, server.holds = 1, True
    program = (
        "import sys; from pathlib import Path; from gald.data.tools.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])"
    )
    arguments = [sys.executable, "-c", program, server.url, str(path), SHA1]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert files(tmp_path) == ["file.bin.part"]
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT) and part.read_bytes() == CONTENT[:kept]
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT and files(tmp_path) == ["file.bin"]
    assert server.ranges == [None, f"bytes={kept}-"]


def test_silent_server_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    server.breaks, server.holds = 1, True
    assert "timed out" in complain(download, server.url, tmp_path / "file.bin", SHA1)
    assert files(tmp_path) == ["file.bin.part"]


@pytest.mark.parametrize("status", [403, 404, 416, 503])
def test_http_error_names_its_code_the_url_and_the_way_by_hand(server, tmp_path, status):
    server.status = status
    sentence = complain(download, server.url, tmp_path / "file.bin", SHA1)
    assert f"HTTP {status}" in sentence and server.url in sentence
    assert f"save it as {tmp_path / 'file.bin'}" in sentence and files(tmp_path) == []


def test_without_network_the_error_says_how_to_download_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
    sentence = complain(download, url, tmp_path / "file.bin", SHA1)
    assert f"could not download {url} (Connection refused)" in sentence
    assert f"save it as {tmp_path / 'file.bin'}" in sentence


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "x.zip"])
def test_only_web_addresses_are_accepted(tmp_path, url):
    with pytest.raises(ValueError, match="neither http nor https"):
        download(url, tmp_path / "file.bin", SHA1)
    assert files(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirection_away_from_the_web_is_refused(server, tmp_path, url):
    server.status, server.location = 302, url
    sentence = complain(download, server.url, tmp_path / "file.bin", SHA1)
    assert "ftp" in sentence or "302" in sentence
    assert files(tmp_path) == []


def test_full_disk_is_reported_before_the_download(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 400_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    path = tmp_path / "file.bin"
    sentence = complain(download, server.url, path, SHA1)
    assert "1.5 MB" in sentence and "400.0 kB" in sentence and "data.root" in sentence
    assert files(tmp_path) == []
    # only the missing bytes need space
    path.with_name("file.bin.part").write_bytes(CONTENT[:1_200_000])
    download(server.url, path, SHA1)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_disk_that_fails_during_the_download_keeps_the_partial_file(
    server, tmp_path, monkeypatch, code
):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.os, "fsync", fail)
    sentence = complain(download, server.url, tmp_path / "file.bin", SHA1)
    assert os.strerror(code) in sentence and "file.bin.part" in sentence
    assert files(tmp_path) == ["file.bin.part"]


def test_file_in_place_of_the_folder_is_named(server, tmp_path):
    (tmp_path / "root").write_text("")
    sentence = complain(download, server.url, tmp_path / "root" / "file.bin", SHA1)
    assert str(tmp_path / "root") in sentence and server.ranges == []


def test_progress_shows_size_and_speed(server, tmp_path, capsys):
    download(server.url, tmp_path / "file.bin", SHA1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search("fetch file.bin .* 1.5/1.5 MB .*B/s", shown.err)


MEMBERS = {
    "devkit/voc/images/a.jpg": b"a" * 5000,
    "devkit/voc/list.txt": b"a\n",
    "devkit/readme.txt": b"hello",
}


def write_archive(path, members=MEMBERS, link=None):
    """Write a zip or tar, with a symbolic link at the end if `link` is (name, target)."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("devkit/", b"")
            for name, content in members.items():
                archive.writestr(name, content)
            if link:
                info = zipfile.ZipInfo(link[0])
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, link[1])
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        folder = tarfile.TarInfo("devkit")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(info)
    return path


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


KINDS = pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])


@KINDS
def test_archive_is_extracted_completely(tmp_path, kind):
    extract(write_archive(tmp_path / kind), tmp_path / "out")
    assert tree(tmp_path / "out") == MEMBERS
    assert files(tmp_path) == ["out", kind]


@KINDS
def test_folder_of_an_archive_is_extracted_beside_existing_ones(tmp_path, kind):
    (tmp_path / "devkit" / "other").mkdir(parents=True)
    extract(write_archive(tmp_path / kind), tmp_path / "devkit" / "voc", top="devkit/voc")
    assert tree(tmp_path / "devkit") == {
        "voc/images/a.jpg": MEMBERS["devkit/voc/images/a.jpg"],
        "voc/list.txt": b"a\n",
    }
    assert files(tmp_path / "devkit") == ["other", "voc"]


def test_folder_missing_in_the_archive_is_named(tmp_path):
    archive = write_archive(tmp_path / "x.tar")
    assert "no folder devkit/coco" in complain(extract, archive, tmp_path / "out", "devkit/coco")
    assert files(tmp_path) == ["x.tar"]


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    assert str(tmp_path / "out") in complain(
        extract, write_archive(tmp_path / "x.tar"), tmp_path / "out"
    )
    assert files(tmp_path / "out") == []


@KINDS
@pytest.mark.parametrize(
    "name", ["../evil", "devkit/../../evil", "/evil", "..\\evil", "C:\\evil", "\\\\host\\evil"]
)
def test_member_outside_of_the_folder_is_refused(tmp_path, kind, name):
    archive = write_archive(tmp_path / kind, MEMBERS | {name: b"evil"})
    sentence = complain(extract, archive, tmp_path / "out")
    assert str(archive) in sentence and name in sentence
    assert files(tmp_path) == [kind]


@KINDS
@pytest.mark.parametrize("target", ["/etc", "images", "../.."])
def test_link_is_refused(tmp_path, kind, target):
    archive = write_archive(tmp_path / kind, link=("devkit/link", target))
    assert "devkit/link is a link" in complain(extract, archive, tmp_path / "out")
    assert files(tmp_path) == [kind]


@KINDS
@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.9])
def test_truncated_archive_is_reported(tmp_path, kind, part):
    archive = write_archive(tmp_path / kind)
    content = archive.read_bytes()
    content = content.rstrip(b"\0") if kind == "x.tar" else content  # a tar is padded
    archive.write_bytes(content[: int(part * len(content))])
    sentence = complain(extract, archive, tmp_path / "out")
    assert f"{archive} is damaged" in sentence and "repeat the command" in sentence
    assert files(tmp_path) == [kind]


@pytest.mark.parametrize("beyond", [0, 100])
def test_tar_truncated_between_two_members_is_reported(tmp_path, beyond):
    archive = write_archive(tmp_path / "x.tar")
    with tarfile.open(archive) as opened:
        cut = opened.getmember("devkit/readme.txt").offset
    archive.write_bytes(archive.read_bytes()[: cut + beyond])
    assert "damaged" in complain(extract, archive, tmp_path / "out")
    assert files(tmp_path) == ["x.tar"]


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
def test_flipped_bit_in_a_member_is_reported(tmp_path, kind):
    archive = write_archive(tmp_path / kind, {"a.bin": CONTENT[:5000]})
    content = bytearray(archive.read_bytes())
    content[2000] ^= 1  # noise is stored uncompressed: the archive can still be read
    archive.write_bytes(content)
    assert "damaged" in complain(extract, archive, tmp_path / "out")
    assert files(tmp_path) == [kind]


def test_leftover_of_a_killed_extraction_is_removed(tmp_path):
    leftover = tmp_path / "out.partial"
    leftover.mkdir()
    (leftover / "half.jpg").write_bytes(b"half")
    extract(write_archive(tmp_path / "x.tar"), tmp_path / "out")
    assert tree(tmp_path / "out") == MEMBERS and files(tmp_path) == ["out", "x.tar"]


def test_interrupted_extraction_leaves_no_folder(tmp_path, monkeypatch):
    seen = []

    def stop(*_):
        seen.extend(files(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        extract(write_archive(tmp_path / "x.tar"), tmp_path / "out")
    assert seen == ["out.partial", "x.tar"]  # FOLDER does not exist before the renaming
    assert files(tmp_path) == ["x.tar"]


def test_full_disk_during_extraction_is_reported(tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "x.tar")
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "total used free")(10**9, 10**9, 400)
        patch.setattr(module.shutil, "disk_usage", lambda _: usage)
        assert "400 bytes" in complain(extract, archive, tmp_path / "out")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.shutil, "copyfileobj", fail)
    assert os.strerror(errno.ENOSPC) in complain(extract, archive, tmp_path / "out")
    assert files(tmp_path) == ["x.tar"]
