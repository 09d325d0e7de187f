"""What a file may cost is bounded, and a refusal names the bound and how to raise it."""

import gzip
import io
import json
import re
import struct
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import fake
import numpy as np
import pytest
import torch
from networks import make
from PIL import Image
from scipy.io import savemat

from gald.data.datamodule import SegmentationDataModule
from gald.data.folder import FolderDataModule
from gald.data.folder_classes import read_classes
from gald.data.reading.files import read_bytes
from gald.data.reading.image import image_header
from gald.data.reading.mask import mask_header, read_colours, read_labels
from gald.data.reading.mat import read_mat
from gald.data.tools.download import extract
from gald.data.transforms import TrainTransform
from gald.inference.slide import Slide
from gald.metrics.images import ImageCounts
from gald.prediction import serve
from gald.prediction.image import to_tensor
from gald.prediction.predictor import load
from gald.prediction.time_limit import TimeLimit
from gald.run.checkpoint import read_checkpoint
from gald.run.limits import BOUNDS, limit
from gald.run.results import read_results
from gald.run.text_file import parse_yaml
from gald.run.weight_file import read_weight_file
from gald.sweep.cells import Sweep, declare
from gald.sweep.table.consistency import audit

ROOT = Path(__file__).parents[2]
BIG = 30000, 30000
PATIENCE = 2  # seconds


def refused(function, *arguments):
    """Return the sentence of a refusal, which must come in time."""
    start = time.process_time()
    with pytest.raises(ValueError) as refusal:
        function(*arguments)
    assert time.process_time() - start < PATIENCE
    sentence = str(refusal.value)
    assert "\n" not in sentence and "; " in sentence
    return sentence


def aliases(levels, width):
    """A YAML text of a few lines that stands for width ** levels values."""
    lines = ["a0: &a0 x"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * width)}]" for i in range(levels)]
    return "\n".join(lines)


YAML = {
    "bomb": (aliases(25, 9), "GALD_MAX_YAML_VALUES"),
    "long list": (f"classes: [{'1,' * 60000}]", "GALD_MAX_YAML_VALUES"),
    "long": ("#" * 40_000_000, "GALD_MAX_YAML_MB=40"),
    "brackets": ("[" * 100_000, "GALD_MAX_NESTING"),
    "dashes": ("- " * 100_000, "GALD_MAX_NESTING"),
    "braces": ("{a: " * 100_000, "GALD_MAX_NESTING"),
    "deep alias": (aliases(150, 1), "GALD_MAX_NESTING"),
    "itself": ("a: &a [*a]", "write it out"),
}


@pytest.mark.parametrize(("text", "remedy"), YAML.values(), ids=YAML)
@pytest.mark.parametrize("name", ["classes.yaml", "config.yaml"])
def test_yaml_is_measured_before_it_is_read(name, text, remedy, tmp_path):
    if name == "classes.yaml":
        path = tmp_path / name
        path.write_text(text)
        sentence = refused(read_classes, path)
    else:
        (cell,) = declare(tmp_path, "x", [], [["seed=0"]])
        path = tmp_path / cell.folder / name
        path.parent.mkdir()
        path.write_text(text)
        start = time.process_time()
        (finding,) = audit(tmp_path)
        assert time.process_time() - start < PATIENCE
        sentence = finding.removeprefix("cell 0 cannot be checked: ")
        assert "\n" not in sentence and "; " in sentence
    assert sentence.startswith(str(path)) and remedy in sentence


@pytest.mark.parametrize("name", ["labelmap.txt", "_classes.csv"])
def test_lists_of_classes_of_other_tools_have_the_same_bound(name, tmp_path):
    (tmp_path / name).write_bytes(b"#" * 2_000_001)
    assert "2000001 bytes, and such a file may have 1 MB" in refused(read_classes, tmp_path / name)


def test_braces_in_a_path_are_text(tmp_path, monkeypatch):
    monkeypatch.setenv("GALD_MAX_MEGAPIXELS", "1")
    monkeypatch.setenv("GALD_MAX_NESTING", "1")
    folder = tmp_path / "{0} {x} {"
    folder.mkdir()
    Image.new("RGB", (2000, 1000)).save(folder / "a.png")
    assert f"{folder}/a.png is 2000x1000, 2000000 pixels" in refused(to_tensor, folder / "a.png")
    for name, read in (("results.json", read_results), ("classes.yaml", read_classes)):
        (folder / name).write_text("[[1]]")
        assert refused(read, folder / name).startswith(f"{folder}/{name} nests more than 1 ")


@pytest.mark.integration
def test_a_raised_bound_is_kept_and_a_wrong_one_is_named(monkeypatch):
    text = f"[{', '.join('1' * 60000)}]".encode()
    monkeypatch.setenv("GALD_MAX_YAML_VALUES", "100000")
    assert len(parse_yaml(text, Path("x"))) == 60000
    for value in ("0", "-1", "1e9", "many", "²"):
        monkeypatch.setenv("GALD_MAX_YAML_VALUES", value)
        sentence = refused(limit, "GALD_MAX_YAML_VALUES")
        assert f"{value!r}" in sentence and "GALD_MAX_YAML_VALUES=50000" in sentence


def test_yaml_is_plain_data():
    text = b"a: 2020-01-01\nb: =\nc: 1e3\nd: !!python/name:os.system x"
    assert "valid YAML" in refused(parse_yaml, text, Path("x"))
    read = parse_yaml(text.rpartition(b"\n")[0], Path("x"))
    assert read == {"a": "2020-01-01", "b": "=", "c": 1000.0}
    assert "duplicate key a" in refused(parse_yaml, b"a: 1\na: 2", Path("x"))


JSON = {
    "lists": (b"[" * 100_000, "GALD_MAX_NESTING"),
    "dicts": (b'{"a":' * 100_000, "GALD_MAX_NESTING"),
    "closed": (b"[" * 150 + b"]" * 150, "GALD_MAX_NESTING"),
    "behind text": (b'{"[\\"[": ' + b"[" * 101, "GALD_MAX_NESTING"),
    "long": (b" " * 40_000_000, "GALD_MAX_JSON_MB=40"),
}


@pytest.mark.parametrize(("data", "remedy"), JSON.values(), ids=JSON)
@pytest.mark.parametrize("name", ["results.json", "manifest.json", "cells.jsonl", "config.json"])
def test_json_is_measured_before_it_is_read(name, data, remedy, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    if name == "config.json":
        torch.save({}, tmp_path / "x.ckpt")
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
        sentence = refused(read_checkpoint, tmp_path)
    else:
        sentence = refused(read_results, path) if name == "results.json" else ""
        sentence = sentence or refused(Sweep.load, tmp_path)
    assert sentence.startswith(str(path)) and remedy in sentence


def test_brackets_in_text_are_no_nesting(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"a": "[" * 1000 + '"\\' * 3}))
    assert read_results(tmp_path / "results.json") == {"a": "[" * 1000 + '"\\' * 3}


@pytest.mark.parametrize("kind", [0, 2, 3, 6], ids=["grey", "rgb", "palette", "rgba"])
def test_a_small_png_with_many_pixels_is_refused_by_its_header(kind, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(fake.png(*BIG, kind))
    assert path.stat().st_size < 50_000
    for read in (to_tensor, image_header, read_labels, mask_header, read_colours):
        sentence = refused(read, path)
        assert "30000x30000, 900000000 pixels, and at most 200 million" in sentence
        assert str(path) in sentence and "GALD_MAX_MEGAPIXELS=900" in sentence


@pytest.mark.parametrize("suffix", ["jpg", "bmp"])
def test_other_formats_have_the_same_bound(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (10, 10)).save(path)
    data = bytearray(path.read_bytes())
    if suffix == "jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", *BIG)
    else:
        data[18:26] = struct.pack("<ii", *BIG)
    path.write_bytes(data)
    assert "900000000 pixels" in refused(to_tensor, path)


def test_training_refuses_a_large_picture_before_the_first_step(tmp_path):
    root = fake.folder(tmp_path / "data")
    (root / "images" / "train" / "0.jpg").unlink()
    (root / "images" / "train" / "0.png").write_bytes(fake.png(*BIG))
    data: SegmentationDataModule = FolderDataModule(str(root))
    data.setup("fit")
    assert "GALD_MAX_MEGAPIXELS=900" in refused(data.check)


def test_crops_and_windows_have_the_bound_of_pictures():
    for build, key in ((TrainTransform, "crop_size"), (Slide, "inference.window")):
        assert "GALD_MAX_MEGAPIXELS=900" in refused(build, BIG) and key in refused(build, BIG)
        build([512, 512])


def test_a_file_in_a_zip_and_in_a_mat_is_measured_before_it_is_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(3 * 10**6))
    monkeypatch.setenv("GALD_MAX_FILE_MB", "2")
    assert "GALD_MAX_FILE_MB=3" in refused(read_bytes, tmp_path / "x.zip" / "a.png")
    savemat(tmp_path / "x.mat", {"S": np.zeros((1500, 1500), np.uint8)}, do_compression=True)
    monkeypatch.setenv("GALD_MAX_MEGAPIXELS", "2")
    assert "GALD_MAX_MEGAPIXELS=3" in refused(read_mat, tmp_path / "x.mat", "S", 10)


def zeros(path, name, count):
    """A zip with a member of `count` zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(name, bytes(count))


def tar_of_zeros(path, kind, count):
    """A tar.gz with a member or a header of `count` zeros."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, count
    with gzip.open(path, "wb", 1) as file:
        file.write(info.tobuf())
        file.write(bytes(count))


@pytest.mark.parametrize("kind", ["zip", "member", "header", "name", "end"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind, tmp_path):
    count = 100 * 10**6
    path = tmp_path / ("x.zip" if kind == "zip" else "x.tar.gz")
    if kind == "zip":
        zeros(path, "x", count)
    elif kind == "end":
        with gzip.open(path, "wb", 1) as file:
            file.write(tarfile.TarInfo("x").tobuf() + bytes(count))
    else:
        kinds = {"member": b"0", "header": tarfile.XHDTYPE, "name": tarfile.GNUTYPE_LONGNAME}
        tar_of_zeros(path, kinds[kind], count)
    sentence = refused(extract, path, tmp_path / "out")
    assert f"{path} has" in sentence and "64 MB" in sentence and "GALD_MAX_UNPACKED_MB" in sentence
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_many_and_deep_members_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/" * 40 + "x", "1")
    sentence = refused(extract, tmp_path / "x.zip", tmp_path / "out")
    assert "a file in 40 folders inside each other" in sentence and "FOLDERS=40" in sentence
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a" * 300, "1")
    assert "a name above 255 bytes" in refused(extract, tmp_path / "x.zip", tmp_path / "out")
    monkeypatch.setenv("GALD_MAX_MEMBERS", "1")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("b", "1")
    assert "GALD_MAX_MEMBERS" in refused(extract, tmp_path / "x.zip", tmp_path / "out")


def counts(**changes):
    parts = {"width": np.array(4), "ends": np.array([1]), "places": np.array([0])}
    parts |= {"values": np.array([1])} | changes
    return {"names": np.array(["a"]), **{f"confusion.{k}": v for k, v in parts.items()}}


def test_counts_are_measured_before_they_are_read(tmp_path):
    path = tmp_path / "images_val.npz"
    zeros(path, "names.npy", 100 * 10**6)
    assert "GALD_MAX_UNPACKED_MB=100" in refused(ImageCounts.load, path)
    np.savez_compressed(path, **counts())
    assert ImageCounts.load(path).dense("confusion").tolist() == [[1, 0, 0, 0]]
    for change, words in (
        ({"width": np.array(10**12)}, "GALD_MAX_COUNTS=1000000000000"),
        ({"places": np.array([4])}, "more than 4 places"),
        ({"places": np.array([-1])}, "other values than counts"),
    ):
        np.savez_compressed(path, **counts(**change))
        assert words in refused(ImageCounts.load, path)
    header = io.BytesIO()
    shape = {"descr": "<i8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("names.npy", header.getvalue() + bytes(100))
    assert "cannot be read as image counts" in refused(ImageCounts.load, path)


def test_a_checkpoint_that_states_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1).expand(10**6, 10**6)}}, path)
    sentence = refused(read_weight_file, path)
    assert "state_dict.a states 4000000000000 bytes and 4 are stored" in sentence
    torch.save({"a": torch.zeros(3, 4)[:, :2].expand(3, 2)}, path)
    read_weight_file(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data + bytes(100 * 10**6 * name.endswith("data.pkl")))
    assert "but its parts state 1000" in refused(read_weight_file, path)
    content = [1]
    for _ in range(40):
        content = [content] * 10
    about = {"config": {"model": content}, "class_names": ["a"], "palette": [[1, 2, 3]]}
    torch.save({"state_dict": {}, "gald": about}, path)
    assert "GALD_MAX_YAML_VALUES" in refused(read_checkpoint, path)


SAFETENSORS = {
    "shape": {"x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}},
    "offsets": {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "overflow": {"x": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize("header", [*SAFETENSORS.values(), b'{"a":' * 20000, 2**31, 2**60])
def test_safetensors_with_lying_sizes_are_refused(header, tmp_path):
    path = tmp_path / "x.safetensors"
    if isinstance(header, int):
        path.write_bytes(struct.pack("<Q", header) + b'{"a"')
    else:
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(data)) + data + b"\0\0\0")
    assert "not a complete safetensors file" in refused(read_weight_file, path)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return load(make(tmp_path_factory.mktemp("network") / "net", "model/ga=gap", "model/ld=mask"))


def test_serve_refuses_with_the_reason_and_no_path_of_the_server(network, tmp_path):
    bounds = serve.Bounds(megapixels=1, megabytes=1, seconds=30, at_once=1)
    limits = TimeLimit(bounds.seconds, bounds.at_once)
    uploads = {
        "bomb.png": (fake.png(*BIG), "is 30000x30000, 900000000 pixels, and this page takes 1 m"),
        "text.png": (b"text", "image text.png cannot be decoded; replace it by a valid png"),
        "empty.jpg": (b"", "empty.jpg is truncated (0 bytes); copy or download it again"),
        "large.png": (bytes(2 * 10**6), "has 2 MB, and this page takes 1; make it smaller, or"),
    }
    for name, (data, words) in uploads.items():
        (tmp_path / name).write_bytes(data)
        sentence = refused(serve.segment, network, tmp_path / name, bounds, limits)
        assert words in sentence and name in sentence and str(tmp_path) not in sentence
    Image.new("RGB", (40, 30)).save(tmp_path / "good.png")
    prediction = serve.segment(network, tmp_path / "good.png", bounds, limits)
    assert prediction.labels.shape == (30, 40)


class Slow:
    """A network that stops at pictures called slow until it is let go."""

    def __init__(self, network):
        self.network, self.go = network, threading.Event()

    def predict(self, path, **options):
        if path.stem == "slow":
            self.go.wait(30)
        return self.network.predict(path, **options)


@pytest.mark.integration
def test_a_slow_picture_is_answered_in_time_and_stops_no_other(network, tmp_path):
    bounds, slow = serve.Bounds(seconds=1, at_once=2), Slow(network)
    limits = TimeLimit(bounds.seconds, bounds.at_once)
    for name in ("slow", "quick"):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    start = time.monotonic()
    sentence = refused(serve.segment, slow, tmp_path / "slow.png", bounds, limits)
    assert 0.9 < time.monotonic() - start < 10
    assert sentence.startswith("slow.png was not segmented within 1 seconds (it takes longer); ")
    assert serve.segment(slow, tmp_path / "quick.png", bounds, limits).labels.shape == (30, 40)
    refused(serve.segment, slow, tmp_path / "slow.png", bounds, limits)
    sentence = refused(serve.segment, slow, tmp_path / "quick.png", bounds, limits)
    assert "(others are still being worked on)" in sentence and "--seconds 2" in sentence
    slow.go.set()
    limits.seconds = 30
    assert serve.segment(slow, tmp_path / "quick.png", bounds, limits).labels.shape == (30, 40)


def test_a_bound_below_1_is_refused_before_the_network_is_loaded():
    with pytest.raises(ValueError, match="--at-once is 0; it must be at least 1"):
        serve.serve("nowhere", bounds=serve.Bounds(at_once=0))


def test_the_documentation_lists_every_bound_with_its_number():
    text = (ROOT / "docs" / "datasets.md").read_text()
    listed = dict(re.findall(r"^\| `(GALD_MAX_\w+)` \| (\d+) \|", text, re.MULTILINE))
    assert {name: int(number) for name, number in listed.items()} == BOUNDS
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert set(re.findall(r"GALD_MAX_\w+", source)) == BOUNDS.keys()
    page = (ROOT / "docs" / "evaluation.md").read_text()
    for name, value in serve.DEFAULTS._asdict().items():
        assert f"| `--{name.replace('_', '-')}` | {value} |" in page
    assert f"more than {serve.WAITING} that wait" in page
