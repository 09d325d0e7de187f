"""The line that says what a training is."""

from types import SimpleNamespace

import torch
from torch import nn

from gald.config import compose
from gald.run.describe import describe_run

TRAINER = SimpleNamespace(
    strategy=SimpleNamespace(root_device=torch.device("cuda")),
    world_size=2,
    precision="bf16-mixed",
    estimated_stepping_batches=920,
)


def lines(backbone):
    cfg = compose("train", ["data=camvid", "data.root=none", "model/ga=cgnl_free"])
    return list(describe_run(cfg, backbone, (367, 101, 233), 13_000_000, TRAINER))


def test_backbone_shows_its_own_name_strides_and_weights():
    backbone = nn.Identity()
    backbone.name, backbone.strides, backbone.random = "hrnet_w18", (4, 32), True
    first, warning = lines(backbone)
    assert first == (
        "camvid 367/101/233 · hrnet_w18 (random weights) /32 · ga=CGNL ld=Mask · 13.0 M · "
        "2 x cuda bf16 · 920 steps"
    )
    assert "model.backbone.weights=timm" in warning


def test_backbone_of_a_user_needs_none_of_these():
    (first,) = lines(nn.Identity())
    assert "· Identity ·" in first
