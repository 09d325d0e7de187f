"""Every verb that writes files: killed around a renaming and repeated, it gives the same bytes."""

import json
import shutil

import cv2
import fake
import killed
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from gald.data.cityscapes import Cityscapes

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


def assert_survives(place, words, limit=None):
    """Kill a command before and after each renaming; return the number of kills."""
    out, log = place / "out", place / "log"
    shutil.rmtree(out, ignore_errors=True)
    assert killed.run(words, None, log) == 0, log.read_text()
    whole = content(out)
    assert whole
    for number in range(1, 100):
        for when in ("before", "after"):
            shutil.rmtree(out)
            code = killed.run(words, (when, "*", number), log)
            if code == 0:
                return number - 1
            assert code == -9, log.read_text()
            if not out.exists():
                out.mkdir()
            code = killed.run(words, None, log)
            assert code == 0 or any(word in log.read_text() for word in DONE), log.read_text()
            assert content(out) == whole, (when, number)
        if number == limit:
            return number
    raise AssertionError("more renamings than expected")


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
