"""The last validation of a training is its final evaluation if it had the same weights."""

import json

import pytest
import pytorch_lightning as pl

SMALL = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=4",
    "data.val_count=3",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "logger=csv",
    "test=false",
    "report=false",
]


@pytest.mark.integration
@pytest.mark.parametrize("callbacks", ["checkpoint", "checkpoint,ema"])
def test_validation_of_the_best_weights_is_not_repeated(gald_cli, tmp_path, monkeypatch, callbacks):
    validations, validate = [], pl.Trainer.validate
    monkeypatch.setattr(
        pl.Trainer, "validate", lambda *a, **k: (validations.append(a), validate(*a, **k))[1]
    )
    run = tmp_path / "run"
    gald_cli("train", *SMALL, f"callbacks=[{callbacks}]", f"output_dir={run}")
    assert not validations
    gald_cli("eval", f"ckpt_path={run}", "trainer.accelerator=cpu", f"output_dir={tmp_path / 'e'}")
    assert len(validations) == 1
    read = [json.loads((f / "results.json").read_text()) for f in (run, tmp_path / "e")]
    before, after = ({k: v for k, v in r.items() if k.startswith("val/")} for r in read)
    receipts = before.pop("val/receipt"), after.pop("val/receipt")
    assert before == after and len(before) > 50
    for key in ("images_sha256", "ground_truth_sha256", "predictions_sha256", "metrics"):
        assert receipts[0][key] == receipts[1][key]
    counts = [(folder / "images_val.npz").read_bytes() for folder in (run, tmp_path / "e")]
    assert counts[0] == counts[1]
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "val/miou" in header and "boundary" not in header  # nothing more is logged
