"""The oracle reads the boundaries of the ground truth: only in the open, and marked."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from gald.model.ld.oracle import BoundaryOracle
from gald.model.truth import boundaries, shown_to

TINY = [
    "data=synthetic",
    "data.train_count=4",
    "data.val_count=2",
    "data.test_count=1",
    "data.size=[32,40]",
    "data.train_transform.crop_size=[32,32]",
    "model.backbone.name=test_resnet",
    "model.backbone.output_stride=null",
    "model.channels=16",
    "model/ga=psp_bare",
    "model/ld=oracle",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "metrics=miou",
    "logger=csv",
    "report=false",
]


def mask(rows: list[list[int]]) -> Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def test_boundaries_by_hand():
    found = boundaries(mask([[0, 0, 1, 1], [0, 0, 1, 1]]))
    assert found.tolist() == [[[False, True, True, False]] * 2]


def test_void_makes_no_boundary_and_has_none():
    assert not boundaries(mask([[0, 0, 255, 0], [0, 0, 255, 0]])).any()
    across = boundaries(mask([[0, 255, 1]]))
    assert across.tolist() == [[[False, False, False]]]
    assert not boundaries(mask([[255, 255], [255, 255]])).any()


def test_diagonal_neighbours_count():
    found = boundaries(mask([[3, 3, 3], [3, 3, 3], [3, 3, 7]]))
    assert found.tolist() == [[[False, False, False], [False, True, True], [False, True, True]]]


def test_oracle_is_a_constant_mix_inside_and_another_at_boundaries():
    oracle = BoundaryOracle(4, leak=True)
    torch.nn.init.normal_(oracle.mix)
    torch.nn.init.normal_(oracle.at_boundary)
    context, x = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    nowhere, everywhere = torch.zeros(2, 1, 20, 24), torch.ones(2, 1, 20, 24)
    for truth, logit in ((nowhere, oracle.mix), (everywhere, oracle.mix + oracle.at_boundary)):
        mix = torch.sigmoid(logit)[:, None, None]
        torch.testing.assert_close(oracle(context, x, truth), x + mix * (context - x))


def test_one_pixel_of_a_boundary_marks_its_cell():
    oracle, truth = BoundaryOracle(4), torch.zeros(1, 1, 20, 24)
    truth[..., 7, 9] = 1  # cells of 4x4
    feature = torch.zeros(1, 4, 5, 6)
    mix = oracle.distribution_map(feature, feature, truth).detach()
    marked = torch.zeros(5, 6, dtype=torch.bool)
    marked[1, 2] = True
    assert mix[..., marked].numpy() == pytest.approx(1 / (1 + np.exp(2)))
    assert mix[..., ~marked].numpy() == pytest.approx(1 / (1 + np.exp(-2)))


def test_boundaries_are_a_fourth_channel_only_for_a_network_that_reads_them():
    class Network(torch.nn.Module):
        def __init__(self, ld: torch.nn.Module) -> None:
            super().__init__()
            self.ld = ld

    image, labels = torch.zeros(1, 3, 2, 4, dtype=torch.uint8), mask([[0, 0, 1, 1]] * 2)
    assert shown_to(Network(torch.nn.Identity()), image, labels) is image
    shown = shown_to(Network(BoundaryOracle(4)), image, labels)
    assert shown[0, 3].tolist() == [[0, 255, 255, 0]] * 2
    assert shown_to(Network(BoundaryOracle(4)), image.float(), labels)[0, 3, 0].tolist() == [
        0.0,
        1.0,
        1.0,
        0.0,
    ]


def test_oracle_is_refused_until_the_leak_is_named(gald_cli, tmp_path):
    with pytest.raises(ValueError, match=r"an upper bound .*set model\.ld\.leak=true"):
        gald_cli("train", *TINY, f"output_dir={tmp_path / 'run'}")
    words = ["model.ld.leak=true", "model.ld.other_image=true"]
    with pytest.raises(ValueError, match="which only gald probe has"):
        gald_cli("train", *TINY, *words, f"output_dir={tmp_path / 'run'}")


@pytest.mark.integration
def test_oracle_trains_is_marked_and_cannot_predict(gald_cli, tmp_path):
    run = tmp_path / "run"
    gald_cli("train", *TINY, "model.ld.leak=true", f"output_dir={run}")
    results = json.loads((run / "results.json").read_text())
    assert results["val/receipt"]["reads_truth"] is True
    gald_cli("eval", "--check", str(run / "results.json"))
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(ValueError, match="also reads the boundaries of the ground truth"):
        gald_cli("predict", str(run), str(photo), "--to", str(tmp_path / "out"))
