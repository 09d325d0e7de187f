"""The network and the training of `make demo`."""

import json
import sys

import pytest
import torch
from hydra.utils import instantiate

from gald import cli
from gald.config import compose
from gald.metrics.confusion import ConfusionMatrix
from gald.training.build import build_task


@pytest.mark.integration
def test_untrained_demo_network_has_a_low_miou():
    cfg = compose("train", ["experiment=demo", "output_dir=unused", "data.num_workers=0"])
    torch.manual_seed(0)
    data = instantiate(cfg.data)
    data.setup("validate")
    task = build_task(cfg, data).eval()
    confusion = ConfusionMatrix(data.num_classes)
    with torch.no_grad():
        for index in range(len(data.val_dataset)):
            item = data.val_dataset[index]
            prediction = task.inference.predict(task.model, item["image"][None])
            confusion.update(prediction, item["mask"][None])
    assert confusion.scores(confusion.compute(), data.class_names)["miou"] < 0.15


@pytest.mark.slow
def test_demo_reaches_its_miou(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gald", "train", "experiment=demo", f"output_dir={tmp_path}"])
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    cli.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["val/miou"] >= 0.60


@pytest.mark.slow
def test_backbone_with_a_small_receptive_field_is_worse_without_context(monkeypatch, tmp_path):
    """Water and vegetation look the same; only the distant sky distinguishes them."""
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    water = {}
    for ga in ("none", "psp"):
        arguments = [
            *("data=synthetic", "data.num_workers=0", f"model/ga={ga}", "model/ld=none"),
            *("model/aux_head=none", "model.channels=48", "model.backbone.name=test_resnet"),
            *("model.backbone.output_stride=null", "model.backbone.levels=[0,1,2]"),
            *("optimizer=adamw", "optimizer.lr=3e-3", "scheduler=cosine", "logger=csv"),
            *("trainer.max_epochs=16", "trainer.check_val_every_n_epoch=8", "test=false"),
        ]
        folder = tmp_path / ga
        monkeypatch.setattr(sys, "argv", ["gald", "train", *arguments, f"output_dir={folder}"])
        cli.main()
        water[ga] = json.loads((folder / "results.json").read_text())["val/iou/water"]
    assert water["psp"] > water["none"] + 0.1
