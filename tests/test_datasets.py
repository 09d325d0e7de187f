"""One epoch and every action of `gald data` for every `data=NAME`, on its toy twin."""

import json
import sys

import cv2
import fake
import pytest

from gald import cli
from gald.config import CONF_DIR

OPTIONS = {path.stem for path in (CONF_DIR / "data").glob("*.yaml")}
TINY = [
    "data.global_batch_size=2",
    "data.num_workers=1",
    "data.train_transform.crop_size=[32,32]",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "report=false",
]
# data=NAME, writer of its twin, further overrides, number of evaluated splits
TWINS = {
    "camvid": ("camvid", fake.camvid, (), 2),
    "cityscapes": ("cityscapes", fake.cityscapes, (), 1),
    "cityscapes, zip": ("cityscapes", lambda root: fake.cityscapes(root, zipped=True), (), 1),
    "cityscapes, coarse": (
        "cityscapes",
        fake.cityscapes,
        ("data.train_split=train+train_extra",),
        1,
    ),
    "ade20k": ("ade20k", fake.ade20k, ("data.eval_batch_size=2",), 1),
    "ade20k, zip": ("ade20k", lambda root: fake.ade20k(root, zipped=True), (), 1),
    "ade20k, decoded": ("ade20k", fake.ade20k, ("data.cache=decoded",), 1),
    "pascal_context": ("pascal_context", fake.pascal_context, ("data.class_uniform=0.5",), 1),
    "pascal_context, 60": (
        "pascal_context",
        lambda root: fake.pascal_context(root, "mat"),
        ("data.classes=60", "data.cache=ram"),
        1,
    ),
    "coco_stuff": ("coco_stuff", fake.coco_stuff_10k, (), 1),
    "coco_stuff, zip": (
        "coco_stuff",
        lambda root: fake.coco_stuff_10k(root, zipped=True),
        (),
        1,
    ),
    "coco_stuff_164k": (
        "coco_stuff_164k",
        fake.coco_stuff_164k,
        ("data.train_transform.cat_max_ratio=0.75",),
        1,
    ),
    "coco_stuff_164k, zip": (
        "coco_stuff_164k",
        lambda root: fake.coco_stuff_164k(root, zipped=True),
        (),
        1,
    ),
    "labelmefacade": ("labelmefacade", fake.labelmefacade, (), 2),
    "crackforest": ("crackforest", fake.crackforest, ("data.class_uniform=0.5",), 2),
    "folder": ("folder", lambda root: fake.folder(root, "colours"), (), None),
}


def gald(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gald", *arguments])
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    try:
        cli.main()
    except SystemExit as end:
        assert end.code == 0


def test_every_data_option_has_a_twin():
    assert {name for name, *_ in TWINS.values()} == OPTIONS - {"synthetic", "synthetic_context"}


# Not trained on: another case of the same dataset is.
READ_ONLY = {case for case in TWINS if "zip" in case} - {"ade20k, zip"}
READ_ONLY |= {"ade20k", "cityscapes"}


# Variants of a dataset that is trained on often.
SELDOM = ("ade20k, decoded", "pascal_context, 60", "coco_stuff_164k")
TRAINED = [
    pytest.param(case, marks=[pytest.mark.slow] if case in SELDOM else [])
    for case in TWINS
    if case not in READ_ONLY
]


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize("case", TRAINED)
def test_one_epoch_through_the_console_script(case, tmp_path, monkeypatch):
    name, write, overrides, evaluated = TWINS[case]
    root, folder = write(tmp_path / name), tmp_path / "run"
    data = (f"data={name}", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}")
    metrics = "all" if case == "coco_stuff" else "miou"  # of 171 classes once
    words = (*data, *TINY, *overrides, f"metrics={metrics}", f"output_dir={folder}")
    gald(monkeypatch, "train", *words)
    results = json.loads((folder / "results.json").read_text())
    assert results["epochs"] == 1 and results["steps"] > 0
    splits = {key.split("/")[0] for key in results if key.endswith("/miou")}
    if evaluated is not None:
        assert splits == ({"val", "test"} if evaluated == 2 else {"val"})
    assert 0 <= results["val/miou"] <= 1


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", [case for case in TWINS if "decoded" not in case])
def test_every_action_of_gald_data(case, tmp_path, monkeypatch, capsys):
    name, write, overrides, _ = TWINS[case]
    root, figure = write(tmp_path / name), tmp_path / "sheet.png"
    data = (name, f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", *overrides)
    gald(monkeypatch, "data", "prepare", *data)
    assert "gald data verify" in capsys.readouterr().out
    gald(monkeypatch, "data", "verify", *data, "--subset")
    assert f"{name}: no problems found" in capsys.readouterr().out
    gald(monkeypatch, "data", "stats", *data)
    assert "loss.main.class_weight=[" in capsys.readouterr().out
    if "zip" not in case:  # drawing is the same for folders and zips
        gald(monkeypatch, "data", "browse", *data, f"--output={figure}", "--count=4")
        sheet = cv2.imread(str(figure))
        assert sheet.shape[0] > 48 and sheet.std() > 10


@pytest.mark.integration
def test_evaluation_does_not_depend_on_its_batch_size(tmp_path, monkeypatch):
    """The twin's images differ in size."""
    root, folder = fake.ade20k(tmp_path / "ade20k"), tmp_path / "run"
    gald(monkeypatch, "train", "data=ade20k", f"data.root={root}", *TINY, f"output_dir={folder}")
    results = []
    for batch in (1, 3):
        output = tmp_path / f"eval_{batch}"
        gald(
            monkeypatch,
            *("eval", f"ckpt_path={folder}", "data=ade20k", f"data.root={root}"),
            *(f"data.eval_batch_size={batch}", "data.num_workers=0"),
            *(f"output_dir={output}", "split=val"),
        )
        results.append(json.loads((output / "results.json").read_text()))
    receipts = [result.pop("val/receipt") for result in results]
    assert receipts[0]["predictions_sha256"] == receipts[1]["predictions_sha256"]
    scores = [{k: v for k, v in r.items() if k.startswith("val/")} for r in results]
    assert json.dumps(scores[0]) == json.dumps(scores[1])


@pytest.mark.integration
def test_eval_refuses_a_test_split_without_public_labels(tmp_path, monkeypatch, capsys):
    root, folder = fake.cityscapes(tmp_path / "cityscapes"), tmp_path / "run"
    data = ("data=cityscapes", f"data.root={root}")
    gald(monkeypatch, "train", *data, *TINY, f"output_dir={folder}")
    monkeypatch.setattr(sys, "argv", ["gald", "eval", f"ckpt_path={folder}", "split=test"])
    monkeypatch.delenv("GALD_TRACEBACK")
    with pytest.raises(SystemExit):
        cli.main()
    assert "has no public test labels; choose split=val" in capsys.readouterr().err
