"""Zips for test servers, from toy datasets: write, check, refuse, interrupt, run out of space."""

import io
import resource
import shutil
import sys
import zipfile

import fake
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

import gald
from gald import cli
from gald.config import compose
from gald.data.ade20k import ADE20K
from gald.data.cityscapes import Cityscapes
from gald.data.coco_stuff import CocoStuff10k
from gald.data.reading.image import read_image
from gald.inference import Slide
from gald.prediction.predictor import Predictor
from gald.prediction.submission import Submission

DATASETS = {"cityscapes": Cityscapes, "ade20k": ADE20K, "coco_stuff": CocoStuff10k}


def twin(name, root):
    """A toy dataset without ground truth in the split that the server evaluates."""
    if name == "cityscapes":
        fake.cityscapes(root)
        shutil.rmtree(root / "gtFine")
    elif name == "ade20k":
        fake.ade20k(root)
        images = root / "ADEChallengeData2016" / "images" / "validation"
        (root / "release_test").mkdir()
        images.rename(root / "release_test" / "testing")
        for i, path in enumerate(sorted((root / "release_test" / "testing").iterdir())):
            path.rename(path.with_name(f"ADE_test_{i + 1:08d}.jpg"))
    else:
        fake.coco_stuff_10k(root)
        shutil.rmtree(root / "annotations")
    return root


def trained(name, folder, seed=0):
    """A run folder with a tiny network of random weights, as training writes it."""
    overrides = ["model.channels=16", "model.backbone.name=test_resnet", f"data={name}"]
    cfg = compose("train", [*overrides, f"output_dir={folder}"])
    torch.manual_seed(seed)
    dataset = DATASETS[name]
    model = instantiate(cfg.model, num_classes=len(dataset.class_names)).eval()
    *_, last = (part for part in model.head.modules() if isinstance(part, torch.nn.Conv2d))
    with torch.no_grad():  # so that no class wins everywhere
        last.bias -= model.logits(torch.rand(1, 3, 24, 32)).mean((0, 2, 3))
    content = {
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "gald": {
            "config": OmegaConf.to_container(cfg, resolve=True),
            "class_names": list(dataset.class_names),
            "palette": [list(colour) for colour in dataset.palette],
        },
    }
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained("cityscapes", tmp_path_factory.mktemp("run") / "a")


@pytest.fixture
def root(tmp_path):
    return twin("cityscapes", tmp_path / "data")


@pytest.fixture
def submit(monkeypatch, capsys):
    """Runs `gald submit ARGUMENTS` and returns its error sentence, or else what it prints."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gald", "submit", *map(str, arguments)])
        monkeypatch.setenv("GALD_TRACEBACK", "0")
        try:
            cli.main()
        except SystemExit as end:
            assert end.code in (1, 130)  # 130: interrupted
            return capsys.readouterr().err.splitlines()[-2].removeprefix("gald: ")
        return capsys.readouterr().out.strip()

    return call


def content(archive):
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def rewrite(archive, files):
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return archive


def png(labels):
    file = io.BytesIO()
    Image.fromarray(np.asarray(labels, np.uint8)).save(file, "png")
    return file.getvalue()


CITYSCAPES = ["testburg0_000000_000019.png", "testburg1_000001_000019.png"]
NAMES = {
    "cityscapes": CITYSCAPES,
    "ade20k": [f"ADE_test_{i:08d}.png" for i in (1, 2, 3)],
    "coco_stuff": [f"COCO_train2014_{i:012d}.png" for i in (6, 7, 8)],
}


@pytest.mark.parametrize("name", NAMES)
def test_writes_a_label_map_for_each_image_without_ground_truth(name, tmp_path, submit):
    root, run = twin(name, tmp_path / "data"), trained(name, tmp_path / "run")
    to = tmp_path / "out" / "mine.zip"
    text = submit(name, run, "--data-root", root, "--subset", "--to", to)
    assert text == f"{to}: {len(NAMES[name])} label maps, ready to upload"
    assert [path.name for path in to.parent.iterdir()] == ["mine.zip"]
    maps = content(to)
    assert list(maps) == NAMES[name]
    predictor, dataset = gald.load(run), DATASETS[name]
    images = dataset.submission_images(root, dataset.submission_splits[0])
    for file, data in maps.items():
        image = Image.open(io.BytesIO(data))
        height, width, _ = read_image(images[file]).shape
        assert image.mode == "L" and image.size == (width, height)
        train_ids = [dataset.label_map[label] for label in np.array(image).ravel().tolist()]
        assert train_ids == predictor.predict(images[file]).labels.ravel().tolist()
        assert len(set(train_ids)) > 1
    text = submit(name, "--check", to, "--data-root", root, "--subset")
    assert text == f"{to}: {len(NAMES[name])} label maps, no problem found"


def test_predicts_with_the_inference_of_the_command_line(root, run, tmp_path, submit):
    to = tmp_path / "x.zip"
    slide = ("--inference", "slide", "inference.window=[16,16]")
    submit("cityscapes", run, "--data-root", root, "--subset", "--to", to, *slide)
    predictor = gald.load(run)
    image = root / f"leftImg8bit/test/testburg0/{CITYSCAPES[0][:-4]}_leftImg8bit.png"
    whole = predictor.predict(image).labels
    predictor.inference = Slide(window=(16, 16), align_corners=predictor.model.align_corners)
    slid = predictor.predict(image).labels
    stored = np.array(Image.open(io.BytesIO(content(to)[CITYSCAPES[0]])))
    assert (np.vectorize(Cityscapes.label_map.get)(stored) == slid).all()
    assert (whole != slid).any()


@pytest.mark.parametrize("name", NAMES)
def test_writes_the_label_ids_of_the_published_table(name, tmp_path, published):
    submission = Submission(
        DATASETS[name], twin(name, tmp_path), DATASETS[name].submission_splits[0], subset=True
    )
    kept = [row for row in published(name) if row["train_id"] != 255]
    expected = [row["id"] for row in sorted(kept, key=lambda row: row["train_id"])]
    data = submission.encode(np.arange(len(expected), dtype=np.uint8)[None])
    assert np.array(Image.open(io.BytesIO(data)))[0].tolist() == expected


def test_finds_images_in_the_published_archives(tmp_path):
    root = fake.cityscapes(tmp_path / "cityscapes", zipped=True)
    assert list(Cityscapes.submission_images(root, "test")) == CITYSCAPES
    root = twin("ade20k", tmp_path / "ade20k")
    fake.pack(root / "release_test", root / "release_test.zip", "release_test")
    assert list(ADE20K.submission_images(root, "test")) == NAMES["ade20k"]
    root = fake.coco_stuff_10k(tmp_path / "coco", zipped=True)
    assert list(CocoStuff10k.submission_images(root, "val")) == NAMES["coco_stuff"]


# errors of --check

GREY = np.full((24, 32), 7)
WRONG = {
    "a train id": ({CITYSCAPES[1]: png(GREY * 0 + 18)}, "has label 18, which is not a class of C"),
    "void": ({CITYSCAPES[1]: png(GREY * 0 + 255)}, "has label 255, which is not a class of Citys"),
    "a size": (
        {CITYSCAPES[0]: png(GREY.T)},
        "is 24x32 but its image is 32x24; predict at the size",
    ),
    "colours": (
        {CITYSCAPES[0]: png(np.zeros((24, 32, 3)))},
        "is an RGB png; save it as 8-bit grey",
    ),
    "a cut file": ({CITYSCAPES[0]: png(GREY)[:-9]}, "is truncated ("),
    "a missing one": ({CITYSCAPES[0]: None}, f"has 1 of 2 label maps, {CITYSCAPES[0]} is missing"),
    "an extra one": (
        {"a_b_c.png": png(GREY)},
        "contains a_b_c.png, which matches none of the 2 images of test; remove it",
    ),
    "another file": ({"readme.txt": b"hello"}, "contains readme.txt, which matches none of the 2"),
    "two of one": (
        {"deep/testburg0_000000_000019_x.png": png(GREY)},
        f"contains deep/testburg0_000000_000019_x.png and {CITYSCAPES[0]} for one image",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_check_refuses_in_one_sentence(case, root, tmp_path, submit):
    files, sentence = WRONG[case]
    files = dict.fromkeys(CITYSCAPES, png(GREY)) | files
    archive = rewrite(tmp_path / "x.zip", {k: v for k, v in files.items() if v is not None})
    text = submit("cityscapes", "--check", archive, "--data-root", root, "--subset")
    assert text.startswith(f"{archive}") or text.startswith(f"mask {archive}")
    assert sentence in text


def test_check_accepts_the_names_that_the_cityscapes_server_accepts(root, tmp_path, submit):
    names = [f"results/{name[:-4]}_leftImg8bit.png" for name in CITYSCAPES]
    archive = rewrite(tmp_path / "x.zip", dict.fromkeys(names, png(GREY)))
    text = submit("cityscapes", "--check", archive, "--data-root", root, "--subset")
    assert text == f"{archive}: 2 label maps, no problem found"


def test_check_refuses_files_that_are_not_a_zip(root, tmp_path, submit):
    options = ("--data-root", root, "--subset")
    assert "name the zip to check" in submit("cityscapes", "--check", "no.zip", *options)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\3\4 and no more")
    assert "is not a complete zip" in submit("cityscapes", "--check", broken, *options)
    whole = rewrite(tmp_path / "whole.zip", {"a.png": b"1"})
    content = whole.read_bytes()
    place = content.index(b"PK\1\2")
    for at, value in ((place + 6, 99), (place + 46, 0xFF)):  # a version, a byte of a name
        damaged = bytearray(content)
        damaged[at] = value
        damaged[place + 9] |= 8  # names are UTF-8
        broken.write_bytes(damaged)
        assert "is not a complete zip" in submit("cityscapes", "--check", broken, *options)
    renamed = broken.rename(tmp_path / "broken.tar")
    assert "does not end in .zip" in submit("cityscapes", "--check", renamed, *options)


# errors of submit


def test_refuses_pixels_without_a_label(root):
    submission = Submission(Cityscapes, root, "test", subset=True)
    labels = np.zeros((2, 3), np.uint8)
    labels[0] = 255
    with pytest.raises(ValueError, match=r"3 of 6 pixels have no label"):
        submission.encode(labels)


def test_refuses_another_number_of_images_than_published(root, run, tmp_path, submit):
    text = submit("cityscapes", run, "--data-root", root, "--to", tmp_path / "x.zip")
    assert "has 2 images, but 1525 are published; restore them, or use only these with" in text


def test_refuses_a_split_that_has_no_submission(root, run, submit):
    text = submit("cityscapes", run, "--data-root", root, "--split", "train")
    assert text == "Cityscapes has no submission of the split 'train'; choose one of test, val"


def test_refuses_a_network_of_other_classes(run, tmp_path, submit):
    root = twin("ade20k", tmp_path / "data")
    text = submit("ade20k", run, "--data-root", root, "--to", tmp_path / "x.zip")
    assert "has 19 classes (road, sidewalk" in text and "but ADE20K has 150 (wall" in text
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_overwrites_nothing(root, run, tmp_path, submit):
    to = tmp_path / "x.zip"
    to.write_text("precious")
    text = submit("cityscapes", run, "--data-root", root, "--subset", "--to", to)
    assert text == f"{to} already exists; choose another --to, or move it away"
    assert to.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("camvid", "RUN"), 'Invalid value "camvid" for NAME; choose'),
        (("cityscapes",), "needs either a RUN to predict with or --check FILE.zip"),
        (("cityscapes", "RUN", "--check", "x.zip"), "needs either a RUN to predict with or"),
        (("cityscapes", "RUN", "split=val"), "does not accept 'split=val'; choose --inference"),
        (("cityscapes", "RUN", "--spilt", "val"), "Unknown option: --spilt; did you mean --split"),
    ],
)
def test_names_invalid_arguments(arguments, sentence, submit):
    assert sentence in submit(*arguments)


# interruption, other networks, full disk


def test_repeated_command_continues_after_an_interruption(root, run, tmp_path, submit, monkeypatch):
    to, whole = tmp_path / "x.zip", tmp_path / "whole.zip"
    options = ("--data-root", root, "--subset")
    submit("cityscapes", run, *options, "--to", whole)
    predict, calls = Predictor.predict, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    text = submit("cityscapes", run, *options, "--to", to)
    assert text.endswith(f"repeat the command to continue from the maps in {to}.maps")
    assert not to.exists()
    submit("cityscapes", run, *options, "--to", to)
    assert len(calls) == 3  # the first image, the interrupted one, and that one again
    assert content(to) == content(whole)
    assert not (tmp_path / "x.zip.maps").exists()


def test_does_not_mix_two_networks(root, run, tmp_path, submit, monkeypatch):
    to, other = tmp_path / "x.zip", trained("cityscapes", tmp_path / "other", seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(Submission, "check", lambda *_: (_ for _ in ()).throw(ValueError("stop")))
        assert submit("cityscapes", run, "--data-root", root, "--subset", "--to", to) == "stop"
    text = submit("cityscapes", other, "--data-root", root, "--subset", "--to", to)
    assert "by another network or with other options" in text
    assert not to.exists()


def test_full_disk_leaves_no_partial_file(root, run, tmp_path, submit):
    to = tmp_path / "x.zip"
    options = ("cityscapes", run, "--data-root", root, "--subset", "--to", to)
    submit(*options)
    whole, room = content(to), to.stat().st_size - 1
    to.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit, maps_are_kept in ((10, False), (room, True)):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            text = submit(*options)
            assert "(File too large); raise the limit on the size of files" in text
            files = [p for p in tmp_path.rglob("*") if p.is_file() and root not in p.parents]
            assert not [p for p in files if "part" in p.name or p.suffix == ".zip"]
            assert not maps_are_kept or {p.name for p in files} >= set(whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    submit(*options)
    assert content(to) == whole
