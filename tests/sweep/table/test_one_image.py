"""`gald table --image`: one image as every arm of a sweep sees it."""

import shutil

import cv2
import numpy as np
import pytest

from gald.sweep.table.table import print_table

DATA = ["data=synthetic", "data.size=[32,40]", "data.val_count=4", "data.num_workers=0"]
DATA += ["metrics=miou", "trainer.accelerator=cpu"]
LDS = ("none", "mask", "const")


@pytest.fixture
def sweep(toy_sweep, trained, gald_cli, tmp_path):
    """A sweep of three arms with checkpoints."""
    folder = toy_sweep(ga=("psp",), ld=LDS, seeds=(0,))
    for number, ld in enumerate(LDS):
        run, cell, to = trained(f"model/ld={ld}"), folder / f"cell_{number}", tmp_path / ld
        gald_cli("eval", f"ckpt_path={run}", *DATA, f"output_dir={to}")
        for name in ("results.json", "images_val.npz"):
            shutil.copy(to / name, cell / name)
        shutil.copytree(run / "checkpoints", cell / "checkpoints")
    return folder


@pytest.mark.integration
def test_an_image_is_drawn_by_every_arm(sweep, gald_cli, tmp_path, capsys, monkeypatch):
    gald_cli("table", str(sweep), "--image", "median", "--to", str(tmp_path / "a"), "--samples=100")
    text = (tmp_path / "a" / "report.md").read_text()
    assert "of val, by the networks of seed 0. It is the image of the median change" in text
    image = text.partition("## One image\n\n")[2].split()[0]
    assert "![One image](image.png)" in text
    assert "--image median" in (tmp_path / "a" / "report.html").read_text()
    gald_cli("table", str(sweep), "--image", image, "--to", str(tmp_path / "b"), "--samples=100")
    assert "median change" not in (tmp_path / "b" / "report.md").read_text()
    drawn = [cv2.imread(str(tmp_path / name / "image.png")) for name in "ab"]
    assert drawn[0].shape[1] > drawn[0].shape[0] and np.array_equal(*drawn)
    assert "not drawn" not in text
    monkeypatch.setattr("gald.sweep.table.one_image.DRAWN", 1)
    gald_cli("table", str(sweep), "--image", image, "--to", str(tmp_path / "c"), "--samples=100")
    assert "1 more arms are not drawn" in (tmp_path / "c" / "report.md").read_text()
    assert cv2.imread(str(tmp_path / "c" / "image.png")).shape[1] < drawn[0].shape[1]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("image", "to", "sentence"),
    [
        ("none", "report", "val has no image none among its 4; --image .* is the first"),
        ("median", None, "--image median is drawn into a report; add --to FOLDER"),
    ],
)
def test_an_image_that_cannot_be_drawn_is_refused(sweep, image, to, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        print_table(sweep, to and tmp_path / to, samples=100, image=image)
    assert not (tmp_path / "report").exists()
