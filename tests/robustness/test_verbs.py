"""Every verb that writes files: killed around a renaming and repeated, it gives the same bytes."""

import hashlib
import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import fake
import killed
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from gald.data.cityscapes import Cityscapes
from gald.data.pascal_context import PascalContext59
from gald.sweep.state import Record, write_record

SMALL = ("data.size=[32,48]", "data.val_count=2", "data.num_workers=0", "metrics=miou")
DONE = ("already exists", "already holds")  # refusals of a command whose output is complete
LOGS = ("run.lock", ".hydra", ".log")
TIMES = ("seconds", "command", "output_dir")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with toy inputs; every command writes to its folder `out`."""
    folder = tmp_path_factory.mktemp("verbs")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in ("a", "b"):
        fake.write_image(folder / "photos" / f"{name}.png", rng.integers(0, 255, (32, 48, 3)))
    writer = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48)
    )
    for _ in range(3):
        writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    fake.cityscapes(folder / "city")
    shape = {"label": "road", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    (folder / "lm").mkdir()
    shutil.copy(folder / "photos" / "a.png", folder / "lm" / "a.png")
    about = {"version": "5", "flags": {}, "shapes": [shape], "imagePath": "a.png"}
    about |= {"imageData": None, "imageHeight": 32, "imageWidth": 48}
    (folder / "lm" / "a.json").write_text(json.dumps(about))
    return folder


def network_for(dataset, trained, root):
    """Return a run folder with a network for the classes of a dataset."""
    folder = trained("data=cityscapes", f"data.root={root}")
    path = folder / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    model = instantiate(content["gald"]["config"]["model"], num_classes=len(dataset.class_names))
    content["state_dict"] = {f"model.{key}": v for key, v in model.state_dict().items()}
    content["gald"]["class_names"] = list(dataset.class_names)
    content["gald"]["palette"] = [list(colour) for colour in dataset.palette]
    torch.save(content, path)
    return folder


@pytest.fixture(scope="module")
def words(place, trained):
    """The command of each verb."""
    run, out = str(trained(*SMALL)), place / "out"
    city = network_for(Cityscapes, trained, place / "city")
    ours = [str(run), str(place / "photos"), "--to", str(out), "--device", "cpu", "--overlay"]
    cpu = ["trainer.accelerator=cpu"]
    return {
        "eval": ["eval", f"ckpt_path={run}", f"output_dir={out}", *cpu],
        "predict": ["predict", *ours, "--confidence", "npz"],
        "predict a video": ["predict", run, str(place / "clip.mp4"), *ours[2:]],
        "export": ["export", run, "--to", str(out / "net"), "--format", "pretrained"],
        "export a program": ["export", run, "--to", str(out / "net.pt2"), "--format", "torch"],
        "viz": ["viz", run, "--image", str(place / "photos" / "a.png"), "--to", str(out / "viz")],
        "submit": [
            *("submit", "cityscapes", str(city), "--data-root", str(place / "city"), "--subset"),
            *("--to", str(out / "x.zip"), "--device", "cpu"),
        ],
        "data import": ["data", "import", "labelme", str(place / "lm"), "--to", str(out / "set")],
    }


VERBS = ("eval", "predict", "predict a video", "export", "export a program", "viz", "submit")


def content(folder):
    """Return the bytes of all files below a folder, without logs and times."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(word in name for word in LOGS):
            continue
        files[name] = path.read_bytes()
        if path.name == "results.json":
            results = json.loads(files[name])
            files[name] = {key: v for key, v in results.items() if key not in TIMES}
    return files


def assert_survives(place, words, limit=None, patch=None):
    """Kill a command before and after each renaming; return the number of kills."""
    out, log = place / "out", place / "log"
    shutil.rmtree(out, ignore_errors=True)
    assert killed.run(words, None, log, patch=patch) == 0, log.read_text()
    whole = content(out)
    assert whole
    for number in range(1, 100):
        for when in ("before", "after"):
            shutil.rmtree(out)
            code = killed.run(words, (when, "*", number), log, patch=patch)
            if code == 0:
                return number - 1
            assert code == -9, log.read_text()
            if not out.exists():
                out.mkdir()
            code = killed.run(words, None, log, patch=patch)
            assert code == 0 or any(word in log.read_text() for word in DONE), log.read_text()
            assert content(out) == whole, (when, number)
        if number == limit:
            return number
    raise AssertionError("more renamings than expected")


@pytest.mark.integration
def test_a_killed_import_is_repeated_to_the_same_bytes(place, words):
    assert assert_survives(place, words["data import"], limit=1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_killed_verb_is_repeated_to_the_same_bytes(verb, place, words):
    assert assert_survives(place, words[verb]) >= 1


@pytest.mark.slow
def test_a_killed_comparison_is_repeated_to_the_same_bytes(place, words):
    runs = [str(place / name) for name in ("one", "two")]
    for run in runs:
        other = f"output_dir={run}"
        evaluate = [other if word.startswith("output_dir=") else word for word in words["eval"]]
        assert killed.run(evaluate, None, place / "log") == 0
    compare = ["compare", *runs, "--to", str(place / "out" / "report")]
    assert assert_survives(place, compare) == 1


@pytest.mark.slow
def test_a_killed_table_is_repeated_to_the_same_bytes(place, words, monkeypatch):
    sweep, config = place / "sweep", place / "config.yaml"
    config.write_text("model: {}\nseed: 0\n")
    header = {"version": 2, "name": "sweep", "command": ["gald", "train", "-m"]}
    cells = [
        {"number": number, "folder": f"cell_{number}", "overrides": [f"model/ga={ga}", "seed=0"]}
        for number, ga in enumerate(("none", "psp"))
    ]
    for cell in cells:
        run = sweep / cell["folder"]
        other = f"output_dir={run}"
        evaluate = [other if word.startswith("output_dir=") else word for word in words["eval"]]
        assert killed.run(evaluate, None, place / "log") == 0
        write_record(run, Record("done", attempts=1, seconds=1.0))
        shutil.copy(config, run)
    lines = "".join(f"{json.dumps(line)}\n" for line in (header, *cells))
    (sweep / "cells.jsonl").write_text(lines)
    scratch = place / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = content(sweep)
    table = ["table", str(sweep), "--to", str(place / "out" / "report"), "--samples", "100"]
    assert assert_survives(place, table) == 1
    assert content(sweep) == before and not list(scratch.iterdir())


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word, as a server that cannot resume."""

    def log_message(self, *_):
        pass


@pytest.fixture
def prepare(place, tmp_path, monkeypatch):
    """The command that downloads a toy twin of Pascal Context, and what it replaces."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "voc" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "voc" / "JPEGImages" / "2008_000002.jpg").write_bytes(bytes(range(256)) * 9)
    with tarfile.open(tmp_path / "VOCtrainval_03-May-2010.tar", "w") as archive:
        archive.add(tmp_path / "voc", "VOCdevkit/VOC2010")
    (tmp_path / "trainval_merged.json").write_text("{}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    twins = []
    for file in PascalContext59.downloads:
        digest = f"sha1:{hashlib.sha1((tmp_path / file.name).read_bytes()).hexdigest()}"
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        twins.append(file._replace(url=url, digest=digest))
    shutil.rmtree(place / "out", ignore_errors=True)
    words = ["data", "prepare", "pascal_context", f"data.root={place / 'out'}"]
    yield words, ("gald.data.pascal_context:PascalContext59.downloads", tuple(twins))
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_a_killed_preparation_is_repeated_to_the_same_bytes(place, prepare):
    words, patch = prepare
    assert assert_survives(place, words, patch=patch) == 3  # two downloads, one folder
    names = {path.name for path in (place / "out").iterdir()}
    assert names == {"VOCdevkit", "trainval_merged.json"}
    for where in ("_digest", "_unpack"):
        shutil.rmtree(place / "out")
        point = ("call", f"gald.data.tools.download:{where}", 1)
        assert killed.run(words, point, place / "log", patch=patch) == -9
        assert killed.run(words, None, place / "log", patch=patch) == 0
        assert {path.name for path in (place / "out").iterdir()} == names


@pytest.mark.integration
def test_an_archive_of_the_user_is_kept(place, prepare):
    words, patch = prepare
    assert killed.run(words, None, place / "log", patch=patch) == 0
    archive = place / "out" / "VOCtrainval_03-May-2010.tar"
    archive.write_bytes(b"mine")
    assert killed.run(words, None, place / "log", patch=patch) == 0
    assert archive.read_bytes() == b"mine"
