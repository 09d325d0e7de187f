"""What may be fetched is fetched, checked and put in place; for the rest the way is printed."""

import hashlib
import re
import shlex
import socket
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from gald.data.tools.download import DownloadError
from gald.data.tools.prepare import SOURCES, prepare

BY_HAND = [name for name, source in SOURCES.items() if source.by_hand]
FETCHED = [name for name in SOURCES if name not in BY_HAND]


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path.lstrip("/"))
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves toy twins of the files of ADE20K and Pascal Context, and stands in the table."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()
    with zipfile.ZipFile(folder / "ADEChallengeData2016.zip", "w") as archive:
        archive.writestr("ADEChallengeData2016/images/validation/ADE_val_00000001.jpg", b"jpg")
    voc = tmp_path / "voc"
    for name in ("JPEGImages/2008_000002.jpg", "ImageSets/Main/train.txt"):
        (voc / name).parent.mkdir(parents=True)
        (voc / name).write_text(name)
    with tarfile.open(folder / "VOCtrainval_03-May-2010.tar", "w") as archive:
        archive.add(voc, "VOCdevkit/VOC2010")
    (folder / "trainval_merged.json").write_text("{}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    server.asked, server.folder = [], folder
    stand_in(monkeypatch, server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def stand_in(monkeypatch, server):
    """Let the table of what is fetched name the files that the server has now."""
    for name in FETCHED:
        twins = tuple(
            replace(
                file,
                url=f"http://127.0.0.1:{server.server_port}/{file.name}",
                digest="sha1:" + hashlib.sha1((server.folder / file.name).read_bytes()).hexdigest(),
            )
            for file in SOURCES[name].files
        )
        monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], files=twins))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_datasets_are_the_ones_with_a_root():
    assert set(SOURCES) == {
        *("cityscapes", "ade20k", "pascal_context", "camvid", "coco_stuff", "coco_stuff_164k")
    }
    assert FETCHED == ["ade20k", "pascal_context"]


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_fetched_without_a_digest(name):
    digests = [file.digest for file in SOURCES[name].files]
    if name in FETCHED:
        assert all(re.fullmatch(r"sha1:[0-9a-f]{40}", digest) for digest in digests)
    else:
        assert not any(digests) and SOURCES[name].steps and SOURCES[name].tree


@pytest.mark.parametrize("name", BY_HAND)
def test_instructions_name_every_file_the_terms_the_place_and_the_next_command(
    name, tmp_path, capsys
):
    root = tmp_path / "my data"
    prepare(name, root)
    shown = capsys.readouterr().out
    source = SOURCES[name]
    for file in source.files:
        assert file.name in shown and file.url in shown and file.size in shown
    assert f"licence: {source.licence}" in shown and "{root}" not in shown
    assert shlex.quote(str(root)) in shown and f"{root} then holds:" in shown
    last = shlex.split(shown.splitlines()[-1])
    assert last == ["next:", "gald", "data", "verify", name, f"data.root={root}"]
    assert not root.exists()


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("choice", [0, -1])
def test_data_that_are_there_are_left_alone(name, choice, tmp_path, capsys):
    for choices in SOURCES[name].needs:
        (tmp_path / choices[choice]).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    prepare(name, tmp_path)
    there, following = capsys.readouterr().out.splitlines()
    assert there == f"{SOURCES[name].title} is already at {tmp_path}"
    assert following.startswith(f"next: gald data verify {name} ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BY_HAND)
def test_half_of_the_data_is_not_taken_for_all(name, tmp_path, capsys):
    for choices in SOURCES[name].needs[:-1]:
        (tmp_path / choices[0]).mkdir(parents=True)
    prepare(name, tmp_path)
    assert "steps:" in capsys.readouterr().out


def test_ade20k_is_fetched_once_and_stays_zipped(server, tmp_path, capsys):
    root = tmp_path / "new" / "ade20k"
    prepare("ade20k", root)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "non-commercial" in first and last == f"next: gald data verify ade20k data.root={root}"
    assert files(root) == ["ADEChallengeData2016.zip"]
    prepare("ade20k", root)
    assert server.asked == ["ADEChallengeData2016.zip"]
    assert "already" in capsys.readouterr().out


def test_pascal_context_is_fetched_extracted_and_tidied(server, tmp_path, capsys):
    root = tmp_path / "pascal_context"
    prepare("pascal_context", root)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "Flickr" in first and last.startswith("next: gald data verify pascal_context")
    whole = [
        "VOCdevkit/VOC2010/ImageSets/Main/train.txt",
        "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg",
        "trainval_merged.json",
    ]
    assert files(root) == whole
    prepare("pascal_context", root)
    assert server.asked == ["VOCtrainval_03-May-2010.tar", "trainval_merged.json"]
    assert files(root) == whole


def test_another_year_of_voc_in_the_folder_stays(server, tmp_path):
    mine = tmp_path / "VOCdevkit" / "VOC2007" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    prepare("pascal_context", tmp_path)
    assert mine.read_text() == "mine"
    assert (tmp_path / "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg").is_file()


def test_what_was_done_before_a_failure_is_not_done_again(server, tmp_path):
    root = tmp_path / "pascal_context"
    labels = server.folder / "trainval_merged.json"
    content = labels.read_bytes()
    labels.unlink()
    with pytest.raises(DownloadError, match=r"HTTP 404.*save it as .*trainval_merged\.json"):
        prepare("pascal_context", root)
    labels.write_bytes(content)
    prepare("pascal_context", root)
    assert server.asked.count("VOCtrainval_03-May-2010.tar") == 1
    assert "trainval_merged.json" in files(root)


def test_tar_that_cannot_be_extracted_is_kept(server, tmp_path, monkeypatch):
    path = server.folder / "VOCtrainval_03-May-2010.tar"
    path.write_bytes(path.read_bytes()[:1000])
    stand_in(monkeypatch, server)
    root = tmp_path / "pascal_context"
    with pytest.raises(DownloadError, match="damaged"):
        prepare("pascal_context", root)
    assert files(root) == ["VOCtrainval_03-May-2010.tar"]


@pytest.mark.parametrize("name", FETCHED)
def test_altered_file_is_refused(server, tmp_path, name):
    path = server.folder / SOURCES[name].files[0].name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DownloadError, match="expected sha1:"):
        prepare(name, tmp_path / "root")
    assert files(tmp_path / "root") == []


@pytest.mark.parametrize("name", FETCHED)
def test_without_network_the_way_by_hand_is_told(tmp_path, monkeypatch, name):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    first = replace(SOURCES[name].files[0], url=url)
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], files=(first,)))
    with pytest.raises(DownloadError) as error:
        prepare(name, tmp_path)
    assert url in str(error.value) and f"save it as {tmp_path / first.name}" in str(error.value)


def test_home_folder_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ADEChallengeData2016").mkdir()
    prepare("ade20k", Path("~"))
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["synthetic", "mine"])
def test_dataset_without_a_source_is_told(tmp_path, name):
    with pytest.raises(ValueError, match=rf"no source of {name} is known; choose one of .*ade20k"):
        prepare(name, tmp_path)


def test_your_own_images_are_told_where_to_go(tmp_path, capsys):
    prepare("folder", tmp_path / "mine")
    out = capsys.readouterr().out
    assert f"{tmp_path}/mine shall hold" in out and "masks/train" in out
    assert yaml.safe_load(out[out.index("    classes:") : out.index("next:")])["void"]["ids"] == [0]
    assert f"gald data verify folder data.root={tmp_path}/mine" in out
