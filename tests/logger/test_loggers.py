"""TensorBoard and MLflow, selected by `logger=...`."""

import sys

import pytest

from gald import cli

TINY = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=4",
    "data.val_count=2",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "metrics=miou",
    "report=false",
    "test=false",
]


@pytest.fixture
def train(monkeypatch, tmp_path):
    def call(*words):
        words = [*TINY, f"output_dir={tmp_path / 'mine' / 'run'}", *words]
        monkeypatch.setattr(sys, "argv", ["gald", "train", *words])
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()
        return tmp_path / "mine" / "run"

    return call


@pytest.mark.integration
def test_tensorboard_has_the_curves_and_a_resumed_run_continues_them(train):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train("logger=tensorboard")
    train("logger=tensorboard", "ckpt_path=last", "trainer.max_epochs=2")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"train/loss", "val/miou", "val/iou/road"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val/miou")] == [1, 3]
    assert (folder / "tensorboard" / "hparams.yaml").is_file()


def test_mlflow_has_the_curves_in_one_run_after_a_resume(train, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = train("logger=mlflow")
    train("logger=mlflow", "ckpt_path=last", "trainer.max_epochs=2")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gald")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine/run"
    assert run.data.params["seed"] == "0"
    scores = client.get_metric_history(run.info.run_id, "val/miou")
    assert [point.step for point in scores] == [1, 3]
    assert (folder / "mlflow_run_id").read_text().strip() == run.info.run_id
