"""`gald data prepare`: downloads with a checksum, instructions for everything else."""

import hashlib
import re
import shlex
import socket
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class

from gald.config import CONF_DIR
from gald.data import tools
from gald.data.dataset import SegmentationDataset
from gald.data.downloads import Download
from gald.data.tools.download import DownloadError
from gald.data.tools.prepare import prepare

NODES = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF_DIR / "data").glob("*.yaml")}
DATASETS = {
    name: get_class(node["_target_"]).dataset_class
    for name, node in NODES.items()
    if "root" in node
}
FETCHED = sorted(name for name, dataset in DATASETS.items() if dataset.downloads)
PUBLISHED = sorted(name for name, dataset in DATASETS.items() if dataset.required)
BY_HAND = [name for name in PUBLISHED if name not in FETCHED]


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path.lstrip("/"))
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves toy twins of the files of ADE20K and Pascal Context, which download from it."""
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
    server.requested, server.folder = [], folder
    use_server(monkeypatch, server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def use_server(monkeypatch, server):
    """Replace the downloads of the datasets by the files that the server has now."""
    for name in FETCHED:
        twins = tuple(
            file._replace(
                url=f"http://127.0.0.1:{server.server_port}/{file.name}",
                digest="sha1:" + hashlib.sha1((server.folder / file.name).read_bytes()).hexdigest(),
            )
            for file in DATASETS[name].downloads
        )
        monkeypatch.setattr(DATASETS[name], "downloads", twins)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_datasets_with_published_checksums_are_fetched():
    assert {"ade20k", "pascal_context"} <= set(FETCHED)
    assert {"camvid", "cityscapes", "coco_stuff", "coco_stuff_164k"} <= set(BY_HAND)


@pytest.mark.parametrize("name", FETCHED)
def test_every_download_has_a_digest(name):
    assert all(re.fullmatch(r"sha1:[0-9a-f]{40}", x.digest) for x in DATASETS[name].downloads)


@pytest.mark.parametrize("name", BY_HAND)
def test_instructions_name_files_licence_folder_and_next_command(name, tmp_path, capsys):
    root, dataset = tmp_path / "my data", DATASETS[name]
    prepare(dataset, name, root)
    shown = capsys.readouterr().out
    assert shown.startswith(f"{dataset.title} is not fetched by gald: ")
    assert f"licence: {dataset.licence}\n" in shown and dataset.url in shown
    assert re.search(r"^files:\n  \S+ +[\d.]+ [MG]B  http", shown, flags=re.MULTILINE)
    assert "steps:\n  1. " in shown and shlex.quote(str(root)) in shown
    assert f"{root} then holds:\n  " in shown
    assert not re.search(r"\{(title|licence|url|class|docstring|quoted_root|root)\}", shown)
    last = shlex.split(shown.splitlines()[-1])
    assert last == ["next:", "gald", "data", "verify", name, f"data.root={root}"]
    assert not root.exists()


class NewDataset(SegmentationDataset):
    """Aerial images.

    Format: `{train,val}/*.png`.
    """

    title = "New"
    name = "new"

    def list_samples(self, split):
        return []


def test_a_new_dataset_needs_no_instructions_of_its_own(tmp_path, capsys):
    prepare(NewDataset, "new", tmp_path / "my data")
    assert capsys.readouterr().out == (
        "New is not fetched by gald: its class names no downloads\n"
        "licence: ask its owners\n"
        "steps:\n"
        "  1. get it from its owners\n"
        f"  2. put it into '{tmp_path}/my data' in the layout that {__name__}.NewDataset "
        "describes:\n\n"
        "Aerial images.\n\n"
        "Format: `{train,val}/*.png`.\n"
        f"next: gald data verify new 'data.root={tmp_path}/my data'\n"
    )


def test_a_new_dataset_states_its_own_downloads(server, tmp_path, monkeypatch, capsys):
    content = (server.folder / "trainval_merged.json").read_bytes()
    url = f"http://127.0.0.1:{server.server_port}/trainval_merged.json"
    file = Download("labels.json", url, "2 B", f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setattr(NewDataset, "downloads", (file,))
    monkeypatch.setattr(NewDataset, "required", (("labels.json", "labels"),))
    monkeypatch.setattr(NewDataset, "licence", "CC0")
    prepare(NewDataset, "new", tmp_path / "new")
    assert capsys.readouterr().out.startswith(f"New, licence: CC0\nfetching {url} (2 B) to ")
    assert (tmp_path / "new" / "labels.json").read_bytes() == content
    prepare(NewDataset, "new", tmp_path / "new")
    assert "New is already at" in capsys.readouterr().out


def test_tools_name_no_dataset():
    for path in Path(tools.__file__).parent.glob("*.py"):
        words = set(re.findall(r"gald\.data\.(\w+) import", path.read_text()))
        assert not words & DATASETS.keys(), path


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("choice", [0, -1])
def test_a_complete_dataset_is_left_alone(name, choice, tmp_path, capsys):
    for group in DATASETS[name].required:
        (tmp_path / group[choice]).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    prepare(DATASETS[name], name, tmp_path)
    first, following = capsys.readouterr().out.splitlines()
    title = "Pascal Context" if name == "pascal_context" else DATASETS[name].title
    assert first == f"{title} is already at {tmp_path}"
    assert following.startswith(f"next: gald data verify {name} ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BY_HAND)
def test_an_incomplete_dataset_is_not_taken_for_complete(name, tmp_path, capsys):
    for group in DATASETS[name].required[:-1]:
        (tmp_path / group[0]).mkdir(parents=True)
    prepare(DATASETS[name], name, tmp_path)
    assert "steps:" in capsys.readouterr().out


def test_ade20k_is_fetched_once_and_stays_zipped(server, tmp_path, capsys):
    root = tmp_path / "new" / "ade20k"
    prepare(DATASETS["ade20k"], "ade20k", root)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "non-commercial" in first and last == f"next: gald data verify ade20k data.root={root}"
    assert files(root) == ["ADEChallengeData2016.zip"]
    prepare(DATASETS["ade20k"], "ade20k", root)
    assert server.requested == ["ADEChallengeData2016.zip"]
    assert "already" in capsys.readouterr().out


def test_pascal_context_is_fetched_and_extracted_and_its_archive_deleted(server, tmp_path, capsys):
    root = tmp_path / "pascal_context"
    prepare(DATASETS["pascal_context"], "pascal_context", root)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "Flickr" in first and last.startswith("next: gald data verify pascal_context")
    whole = [
        "VOCdevkit/VOC2010/ImageSets/Main/train.txt",
        "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg",
        "trainval_merged.json",
    ]
    assert files(root) == whole
    prepare(DATASETS["pascal_context"], "pascal_context", root)
    assert server.requested == ["VOCtrainval_03-May-2010.tar", "trainval_merged.json"]
    assert files(root) == whole


def test_another_year_of_voc_in_the_folder_stays(server, tmp_path):
    mine = tmp_path / "VOCdevkit" / "VOC2007" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    prepare(DATASETS["pascal_context"], "pascal_context", tmp_path)
    assert mine.read_text() == "mine"
    assert (tmp_path / "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg").is_file()


def test_a_repeated_call_skips_what_an_interrupted_one_finished(server, tmp_path):
    root = tmp_path / "pascal_context"
    labels = server.folder / "trainval_merged.json"
    content = labels.read_bytes()
    labels.unlink()
    with pytest.raises(DownloadError, match=r"HTTP 404.*save it as .*trainval_merged\.json"):
        prepare(DATASETS["pascal_context"], "pascal_context", root)
    labels.write_bytes(content)
    prepare(DATASETS["pascal_context"], "pascal_context", root)
    assert server.requested.count("VOCtrainval_03-May-2010.tar") == 1
    assert "trainval_merged.json" in files(root)


def test_tar_that_cannot_be_extracted_is_kept(server, tmp_path, monkeypatch):
    path = server.folder / "VOCtrainval_03-May-2010.tar"
    path.write_bytes(path.read_bytes()[:1000])
    use_server(monkeypatch, server)
    root = tmp_path / "pascal_context"
    with pytest.raises(DownloadError, match="damaged"):
        prepare(DATASETS["pascal_context"], "pascal_context", root)
    assert files(root) == ["VOCtrainval_03-May-2010.tar"]


@pytest.mark.parametrize("name", FETCHED)
def test_altered_file_is_refused(server, tmp_path, name):
    path = server.folder / DATASETS[name].downloads[0].name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DownloadError, match="expected sha1:"):
        prepare(DATASETS[name], name, tmp_path / "root")
    assert files(tmp_path / "root") == []


@pytest.mark.parametrize("name", FETCHED)
def test_without_network_the_error_says_how_to_download_by_hand(tmp_path, monkeypatch, name):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    first = DATASETS[name].downloads[0]._replace(url=url)
    monkeypatch.setattr(DATASETS[name], "downloads", (first,))
    with pytest.raises(DownloadError) as error:
        prepare(DATASETS[name], name, tmp_path)
    assert url in str(error.value) and f"save it as {tmp_path / first.name}" in str(error.value)


def test_home_folder_is_expanded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ADEChallengeData2016").mkdir()
    prepare(DATASETS["ade20k"], "ade20k", Path("~"))
    assert str(tmp_path) in capsys.readouterr().out


def test_folder_shows_the_layout_and_a_valid_classes_yaml(tmp_path, capsys):
    prepare(DATASETS["folder"], "folder", tmp_path / "mine")
    out = capsys.readouterr().out
    assert f"{tmp_path}/mine must contain" in out and "masks/train" in out
    assert yaml.safe_load(out[out.index("    classes:") : out.index("next:")])["void"]["ids"] == [0]
    assert f"gald data verify folder data.root={tmp_path}/mine" in out
