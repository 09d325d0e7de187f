import re

import fake
import numpy as np
import pytest

from gald.data.camvid import CamVidDataModule
from gald.data.tools.class_report import print_classes
from gald.loss.cross_entropy import CrossEntropy


@pytest.fixture
def known(tmp_path):
    """Two images: one of a quarter Sky, a quarter Building and half void, and one of only Sky."""
    root = fake.camvid(tmp_path / "camvid", lists=None)
    for path in sorted((root / "train").iterdir())[2:]:
        path.unlink()
        (root / "trainannot" / path.name).unlink()
    mask = np.full((24, 32), 11)
    mask[:6], mask[6:12] = 0, 1
    fake.write_labels(root / "trainannot" / "train_00.png", mask)
    fake.write_labels(root / "trainannot" / "train_01.png", np.zeros((24, 32)))
    return CamVidDataModule(str(root), cache_dir=str(tmp_path / "cache"))


def test_percentages_are_of_labelled_pixels_and_of_images(known, capsys):
    print_classes(known, "camvid", "train")
    out = capsys.readouterr().out
    cells = {row[0]: row[1:] for row in (re.findall(r"[\w.]+", x) for x in out.splitlines()) if row}
    # Sky: 1.25 of 1.5 images in both; Building: 0.25 of 1.5 in one of them
    assert cells["Sky"][:2] == ["83.33", "100.0"]
    assert cells["Building"][:2] == ["16.67", "50.0"]
    assert cells["Car"][:2] == ["absent", "0.0"]
    assert cells["void"][0] == "25.00"  # of all pixels


def test_weights_can_be_pasted_as_an_override(known, capsys):
    print_classes(known, "camvid", "train")
    out = capsys.readouterr().out
    (listed,) = re.findall(r"^'loss\.main\.class_weight=\[(.*)\]'$", out, flags=re.MULTILINE)
    weights = [float(weight) for weight in listed.split(",")]
    assert len(weights) == 11
    # frequencies 1.25/1.5 and 0.25/0.5: their median is 2/3
    assert weights[:2] == pytest.approx([0.8, 4 / 3], abs=1e-4) and not any(weights[2:])
    CrossEntropy(class_weight=weights)
