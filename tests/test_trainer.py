"""Trainers for one device or several, started by Lightning, torchrun or srun."""

import csv
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from gald.config import CONF_DIR, compose
from gald.model.backbone import TimmBackbone
from gald.trainer import build_trainer

TRAINERS = sorted(path.stem for path in (CONF_DIR / "trainer").glob("*.yaml"))
TINY = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=8",
    "data.val_count=3",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "test=false",
]
PLAIN = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def composed(*words):
    return compose("train", [*words, "output_dir=out"])


def program(*command, **variables):
    outside = ("GALD_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {key: value for key, value in os.environ.items() if key not in outside}
    paths = os.pathsep.join([str(Path(__file__).parent / "data"), *sys.path])
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *command],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.parametrize("name", TRAINERS)
def test_every_option_is_an_argument_of_lightnings_trainer(name):
    cfg = composed(f"trainer={name}").trainer
    OmegaConf.resolve(cfg)
    assert set(cfg) - {"_target_", "compile"} <= set(inspect.signature(pl.Trainer).parameters)
    assert cfg._target_ == "gald.trainer.build_trainer"
    gpus = name in ("ddp", "ddp_nodes", "slurm")
    assert cfg.sync_batchnorm is gpus
    assert cfg.precision == ("bf16-mixed" if gpus or name == "gpu" else "32-true")


def page_commands():
    text = (Path(__file__).parents[1] / "docs" / "scale.md").read_text()
    for block in re.findall(r"```(?:bash|text)\n(.*?)```", text, flags=re.DOTALL):
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            if found := re.search(r"gald[. ]train (.*)", line.split("   #")[0]):
                yield found[1].removeprefix("-m ").replace("$again", "ckpt_path=last").strip()


@pytest.mark.parametrize("line", sorted(page_commands()))
def test_commands_of_docs_scale_compose(line):
    words = shlex.split(line)
    for name in ("joblib", "submitit"):
        if f"hydra/launcher={name}" in line:
            pytest.importorskip(f"hydra_plugins.hydra_{name}_launcher")
    compose("train", words, hydra=True)


def test_numbers_of_machines_and_gpus_come_from_slurm(monkeypatch):
    monkeypatch.setenv("SLURM_NNODES", "3")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    cfg = composed("trainer=slurm").trainer
    assert (cfg.num_nodes, cfg.devices) == (3, 4)
    assert composed("trainer=ddp_nodes").trainer.num_nodes == 2


def test_batch_norm_of_processes_on_the_cpu_cannot_be_synchronised():
    with pytest.raises(
        ValueError, match=r"between 2 processes on the CPU; add trainer\.sync_batch"
    ):
        build_trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, **PLAIN)
    # A single process does not synchronise, so it is allowed.
    build_trainer(accelerator="cpu", devices=1, sync_batchnorm=True, **PLAIN)


def test_synchronised_batch_norm_keeps_the_activations_of_timm():
    trainer = build_trainer(accelerator="cpu", devices=1, sync_batchnorm=True, **PLAIN)
    plugin = trainer._accelerator_connector._layer_sync
    backbone = TimmBackbone("test_efficientnet", frozen=1).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(image)[-1]
        synchronised = plugin.apply(backbone)
        count = sum(isinstance(m, torch.nn.SyncBatchNorm) for m in synchronised.modules())
        assert count > 5
        torch.testing.assert_close(synchronised(image)[-1], expected)
        assert not synchronised.train().net.bn1.training
        restored = plugin.revert(synchronised).eval()
        assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in restored.modules())
        torch.testing.assert_close(restored(image)[-1], expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_error_without_a_gpu_names_another_trainer():
    with pytest.raises(ValueError, match=r"accelerator=gpu .* trainer=default uses an available"):
        build_trainer(accelerator="gpu", devices=1, **PLAIN)


@pytest.mark.parametrize("starter", ["TORCHELASTIC_RUN_ID", "SLURM_PROCID"])
def test_processes_without_a_common_run_folder_are_refused(starter, monkeypatch):
    for name in ("GALD_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(starter, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    folder = "runs/train/2026-11-22_14-03-54"
    with pytest.raises(ValueError, match="each of 2 processes would create its own run folder"):
        build_trainer(accelerator="cpu", default_root_dir=folder, **PLAIN)
    monkeypatch.setenv("WORLD_SIZE", "1")
    build_trainer(accelerator="cpu", default_root_dir=folder, **PLAIN)


def scores(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["val/miou"]) for row in csv.DictReader(file) if row["val/miou"]]


@pytest.mark.slow  # three processes; the fast test of the run id is in tests/run/test_run_id.py
def test_torchrun_creates_one_run_folder(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    train = ["-m", "gald", "train", "trainer=ddp_cpu", *TINY, "trainer.max_epochs=1"]
    where = f"hydra.run.dir={tmp_path}/runs/train/${{oc.env:GALD_RUN_ID}}"
    done = program(*launch, *train, where, GALD_RUN_ID="mine")
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert folder.name == "mine"
    results = json.loads((folder / "results.json").read_text())
    assert results["val/receipt"]["processes"] == 2 and results["steps"] == 2
    assert len(scores(folder)) == 1
