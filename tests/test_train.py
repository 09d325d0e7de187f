"""`gald train` and `gald eval` from end to end, on images so small that a run takes a second."""

import csv
import json
import sys

import pytest
import torch

import gald
from gald import cli
from gald.run.checkpoint import read_checkpoint

TINY = [
    "data=synthetic",
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=12",
    "data.val_count=5",
    "data.test_count=3",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "report=false",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("run") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gald", "train", *TINY, f"output_dir={folder}"])
        patch.setenv("GALD_TRACEBACK", "1")
        cli.main()
    return folder


def weights(folder, name="last"):
    return read_checkpoint(folder / "checkpoints" / f"{name}.ckpt").weights


def table(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_run_folder_has_all_files_and_results(run):
    names = {path.name for path in run.iterdir()}
    assert "report" not in names  # by report=false
    assert {"config.yaml", "checkpoints", "metrics.csv", "results.json", "picture.png"} <= names
    results = json.loads((run / "results.json").read_text())
    expected = {"val/miou", "test/miou", "val/iou/road", "params", "seconds", "seed", "commit"}
    assert expected | {"version/torch"} <= results.keys()
    assert 0 <= results["val/miou"] <= 1
    assert results["params"] == results["cost/total/params"] > results["cost/ga/params"] > 0
    assert results["cost/total/gmacs"] > results["cost/ga/gmacs"] > 0
    assert "${" not in (run / "config.yaml").read_text()
    assert (run / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_table_has_losses_and_scores_by_step(run):
    rows = table(run)
    scored = [row for row in rows if row["val/miou"]]
    assert {row["step"] for row in scored} >= {"2", "5"}  # the last step of each epoch
    assert "val/iou/pole" in rows[0] and "train/loss" in rows[0]
    results = json.loads((run / "results.json").read_text())
    best = max(float(row["val/miou"]) for row in scored)
    assert results["val/miou"] == pytest.approx(best)


def test_loaded_network_predicts(run):
    predictor = gald.load(run)
    assert not predictor.training
    with torch.no_grad():
        scores = predictor(torch.zeros(1, 3, 50, 70, dtype=torch.uint8))
    assert scores.shape == (1, 10, 50, 70)


def test_evaluation_repeats_the_scores_of_training(run, gald_cli, tmp_path):
    gald_cli("eval", f"ckpt_path={run}", "split=test", f"output_dir={tmp_path}")
    trained = json.loads((run / "results.json").read_text())
    evaluated = json.loads((tmp_path / "results.json").read_text())
    assert evaluated["test/miou"] == trained["test/miou"]
    assert evaluated["test/receipt"]["images"] == 3


def test_evaluation_does_not_overwrite_the_results_of_training(run, gald_cli):
    before = (run / "results.json").read_bytes()
    with pytest.raises(ValueError, match=r"already holds results; choose another output_dir"):
        gald_cli("eval", f"ckpt_path={run}", f"output_dir={run}")
    assert (run / "results.json").read_bytes() == before


def test_evaluation_accepts_other_data_and_inference(run, gald_cli, tmp_path):
    small = ["data=synthetic", "data.val_count=3", "data.num_workers=0", "inference=whole"]
    gald_cli("eval", f"ckpt_path={run}", *small, f"output_dir={tmp_path}")
    evaluated = json.loads((tmp_path / "results.json").read_text())
    assert evaluated["val/receipt"]["images"] == 3


def test_evaluation_refuses_data_with_other_classes(run, gald_cli, tmp_path):
    with pytest.raises(ValueError, match=r"network has 10 classes .* the data has 11"):
        gald_cli("eval", f"ckpt_path={run}", "data=camvid", f"output_dir={tmp_path}")


@pytest.mark.integration
def test_same_seed_trains_the_same_network_with_any_number_of_workers(run, gald_cli, tmp_path):
    gald_cli("train", *TINY, "data.num_workers=2", f"output_dir={tmp_path / 'b'}")
    assert_equal_weights(weights(run), weights(tmp_path / "b"))


@pytest.mark.slow
def test_another_seed_trains_another_network(run, gald_cli, tmp_path):
    gald_cli("train", *TINY, "seed=1", f"output_dir={tmp_path / 'b'}")
    key = "reduce.conv.weight"
    assert not torch.equal(weights(run)[key], weights(tmp_path / "b")[key])


@pytest.mark.integration
def test_interrupted_run_resumes_to_the_same_weights_and_one_metrics_table(
    run, gald_cli, tmp_path, monkeypatch
):
    folder = tmp_path / "b"
    with monkeypatch.context() as patch:
        from gald.task import SegmentationTask

        def stop(self, *_):
            if self.trainer.current_epoch == 1:
                raise RuntimeError("power cut")

        patch.setattr(SegmentationTask, "on_train_epoch_start", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            gald_cli("train", *TINY, f"output_dir={folder}")
    before = table(folder)
    last = folder / "checkpoints" / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | {"seconds": 5000.0}, last)
    gald_cli("train", *TINY, f"output_dir={folder}", "ckpt_path=last")
    assert json.loads((folder / "results.json").read_text())["seconds"] > 5000
    assert_equal_weights(weights(run), weights(folder))
    after = table(folder)
    assert [row["step"] for row in after[: len(before)]] == [row["step"] for row in before]
    assert len(after) > len(before)


def test_finished_run_is_not_overwritten(run, gald_cli):
    with pytest.raises(ValueError, match=r"already holds a run; add ckpt_path=last"):
        gald_cli("train", *TINY, f"output_dir={run}")


def test_resume_without_a_checkpoint_names_the_remedy(gald_cli, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give output_dir=FOLDER of the run"):
        gald_cli("train", *TINY, f"output_dir={tmp_path}", "ckpt_path=last")


def test_damaged_checkpoint_is_named(run, gald_cli, tmp_path):
    whole = (run / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.ckpt cannot be read as a checkpoint"):
        gald_cli("eval", f"ckpt_path={tmp_path / 'cut.ckpt'}", f"output_dir={tmp_path}")


AVERAGED = [*TINY, "callbacks=[checkpoint,learning_rate,progress,ema]"]


@pytest.mark.integration
def test_every_number_of_an_averaged_run_is_of_the_averaged_weights(run, gald_cli, tmp_path):
    folder = tmp_path / "b"
    gald_cli("train", *AVERAGED, f"output_dir={folder}")
    content = read_checkpoint(folder / "checkpoints" / "last.ckpt").content
    key = "reduce.conv.weight"
    plain = weights(run)[key]
    assert not torch.equal(content["state_dict"][f"model.{key}"], plain)
    assert torch.equal(content["current_model_state"][f"model.{key}"], plain)
    gald_cli("eval", "--check", str(folder / "results.json"))  # both splits
    picture = (folder / "picture.png").read_bytes()
    gald_cli("train", *AVERAGED, f"output_dir={folder}", "ckpt_path=last")
    assert (folder / "picture.png").read_bytes() == picture
    gald_cli("eval", "--check", str(folder / "results.json"))


@pytest.mark.slow
def test_average_of_a_short_run_is_trained(gald_cli, tmp_path):
    """After n updates with a warm-up, no weight of the first step remains above its share."""
    before, after = tmp_path / "a", tmp_path / "b"
    gald_cli("train", *AVERAGED, "trainer.max_epochs=1", f"output_dir={after}")
    gald_cli("train", *AVERAGED, "optimizer.lr=0", "trainer.max_epochs=1", f"output_dir={before}")
    key = "reduce.conv.weight"
    content = read_checkpoint(after / "checkpoints" / "last.ckpt").content
    average, now = (content[part][f"model.{key}"] for part in ("state_dict", "current_model_state"))
    start = weights(before)[key]
    assert (average - start).norm() > 0.5 * (now - start).norm() > 0


@pytest.mark.integration
def test_moved_run_keeps_its_better_checkpoint_and_is_confirmed(gald_cli, tmp_path):
    folder, moved = tmp_path / "here", tmp_path / "there"
    gald_cli("train", *TINY, f"output_dir={folder}")
    folder.rename(moved)
    receipt = json.loads((moved / "results.json").read_text())["test/receipt"]
    assert receipt["checkpoint"] == "checkpoints/best.ckpt"
    gald_cli("eval", "--check", str(moved / "results.json"))
    best = moved / "checkpoints" / "best.ckpt"
    old = torch.load(best, weights_only=True)
    score = json.loads((moved / "results.json").read_text())["val/miou"]
    last = moved / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    (key,) = (key for key in content["callbacks"] if key.startswith("ModelCheckpoint"))
    assert str(folder) not in str(content["callbacks"])
    content["callbacks"][key]["best_model_score"] = torch.tensor(score + 0.1)  # never reached
    torch.save(content, last)
    more = ("trainer.max_epochs=3", f"output_dir={moved}", "ckpt_path=last")
    gald_cli("train", *TINY, *more)
    assert_equal_weights(old["state_dict"], torch.load(best, weights_only=True)["state_dict"])
    assert json.loads((moved / "results.json").read_text())["val/miou"] == score
    gald_cli("eval", "--check", str(moved / "results.json"))


def test_several_best_checkpoints_are_refused(gald_cli, tmp_path):
    words = (*TINY, "callbacks.best.save_top_k=3", f"output_dir={tmp_path / 'b'}")
    with pytest.raises(Exception, match=r"callbacks.best.save_top_k=3: save_top_k must be 1"):
        gald_cli("train", *words)


@pytest.mark.integration
def test_accumulation_and_amp_train(gald_cli, tmp_path):
    gald_cli(
        "train",
        *TINY,
        "data.micro_batch_size=2",
        "trainer.precision=bf16-mixed",
        "loss=ohem",
        "optimizer=adamw",
        "scheduler=cosine",
        f"output_dir={tmp_path / 'b'}",
    )
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert results["steps"] == 6  # 2 epochs of 12 images at a global batch of 4


@pytest.mark.integration
def test_wandb_logs_offline_with_masks_and_best_score(gald_cli, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    folder = tmp_path / "b"
    gald_cli("train", *TINY, "logger=[csv,wandb]", "trainer.max_epochs=1", f"output_dir={folder}")
    (offline,) = (folder / "wandb").glob("offline-run-*")
    media = offline / "files" / "media" / "images"
    assert len(list((media / "mask").rglob("*.mask.png"))) > 0
    assert len(list(media.rglob("panels*.png"))) == 4
    record = next(offline.glob("*.wandb")).read_bytes()
    assert b"best/val/miou" in record


def test_wandb_online_without_a_key_falls_back_to_offline(tmp_path, monkeypatch):
    from gald.logger.wandb import wandb_logger

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.warns(UserWarning, match="logging offline"):
        logger = wandb_logger(str(tmp_path), mode="online")
    logger.experiment.finish()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_run_after_a_failed_one_has_its_own_wandb_run(tmp_path):
    from gald.logger.wandb import wandb_logger

    first, second = (wandb_logger(str(tmp_path / name)).experiment for name in "ab")
    second.finish()
    assert first.id != second.id
    assert list((tmp_path / "b" / "wandb").glob("offline-run-*"))


@pytest.mark.integration
def test_run_can_start_from_the_weights_of_another(run, gald_cli, tmp_path):
    gald_cli("train", *TINY, f"init_from={run}", "optimizer.lr=0.0", f"output_dir={tmp_path}/b")
    source, started = weights(run, "best"), weights(tmp_path / "b")
    learned = [key for key in source if "running" not in key and "num_batches" not in key]
    learned = [key for key in learned if source[key].is_floating_point()]
    assert learned and all(torch.equal(source[key], started[key]) for key in learned)


def test_weights_of_another_network_name_the_first_difference(run, gald_cli, tmp_path):
    with pytest.raises(ValueError, match=r"has \(.*\) where this network has .* for .*; choose"):
        gald_cli(
            *("train", *TINY, f"init_from={run}", "model.channels=32"),
            f"output_dir={tmp_path}/b",
        )


def test_checkpoint_without_training_state_cannot_be_resumed(run, gald_cli, tmp_path):
    content = read_checkpoint(run).content
    kept = {key: content[key] for key in ("gald", "state_dict")}
    torch.save(kept, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=r"holds a network but no training.*init_from="):
        gald_cli("train", *TINY, f"ckpt_path={tmp_path}/weights.ckpt", f"output_dir={tmp_path}/b")
