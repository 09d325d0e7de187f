"""A precision that the device emulates gets a warning."""

import pytest
import torch

from gald.inference.precision import slow_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("inference", "trainer", "remedy"),
    [
        ("bf16", "32-true", "add inference.precision=null"),
        (None, "bf16-mixed", "add trainer.precision=32-true"),
        ("bf16", "bf16-mixed", "add inference.precision=null trainer.precision=32-true"),
        (None, "32-true", None),
    ],
)
def test_emulated_precision_gets_a_warning_with_the_remedy(inference, trainer, remedy, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    warning = slow_precision(inference, trainer, CPU)
    assert warning is None if remedy is None else warning.endswith(remedy)
    assert slow_precision(inference, trainer, torch.device("cuda")) is None
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert slow_precision(inference, trainer, CPU) is None


@pytest.mark.integration
def test_training_and_evaluation_print_it(gald_cli, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    words = ["data=synthetic", "data.size=[48,64]", "data.train_transform.crop_size=[48,64]"]
    words += ["data.train_count=4", "data.val_count=2", "data.test_count=2", "data.num_workers=0"]
    words += ["model.backbone.name=test_resnet", "model.channels=16", "trainer.accelerator=cpu"]
    words += ["trainer.max_epochs=1", "scheduler.warmup_steps=0", "metrics=miou", "logger=csv"]
    words += ["report=false", "data.global_batch_size=2", "model.backbone.weights=null"]
    run = tmp_path / "run"
    gald_cli("train", *words, "inference.precision=bf16", f"output_dir={run}")
    assert "slower than in 32 bits; add inference.precision=null" in capsys.readouterr().out
    checkpoint = run / "checkpoints" / "best.ckpt"
    gald_cli("eval", f"ckpt_path={checkpoint}", "trainer.accelerator=cpu", f"output_dir={run}/e")
    assert "slower than in 32 bits; add inference.precision=null" in capsys.readouterr().out
