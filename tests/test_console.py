"""Several processes, started by the console script `gald` of an installed wheel."""

import csv
import json
import os
from collections import defaultdict
from pathlib import Path

import fake
import numpy as np
import pytest
import torch

from gald.metrics.images import ImageCounts
from gald.run.checkpoint import read_checkpoint
from gald.sweep.cells import Sweep
from gald.sweep.state import read_state

ANY_DATA = [
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "test=false",
]
TINY = [
    "data=synthetic",
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=8",
    "data.val_count=7",
    *ANY_DATA,
]


@pytest.fixture
def elsewhere(tmp_path):
    """A user's folder with files that no process of gald may import as modules."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("statistics", "random", "gald", "torch"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    return folder


@pytest.fixture
def login_node(tmp_path):
    """A PATH with SLURM's srun, which makes Lightning warn that srun is not used."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    return f"{srun.parent}{os.pathsep}{os.environ['PATH']}"


def assert_success(done):
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def logged(run):
    """The training losses that a run has logged."""
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def losses(folder):
    """Mean loss of every step over its micro-batches and processes, and the number of processes."""
    steps = defaultdict(list)
    files = list(folder.glob("*.json"))
    for file in files:
        for step, loss in json.loads(file.read_text()):
            steps[step].append(loss)
    return [sum(values) / len(values) for _, values in sorted(steps.items())], len(files)


def camvid_with_uneven_void(root):
    """Write 8 train and 7 val samples of CamVid; void covers 0 to 60 % of a sample, 30 % of all."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 7)):
        for i in range(count):
            image, mask = fake.sample(rng, range(11))
            rows = round(len(mask) * (0, 0.6, 0.1, 0.5)[i % 4])
            mask[:rows] = 11
            name = f"{'ab'[i % 2]}_{i}.png"  # frames of two videos
            fake.write_image(root / split / name, image)
            fake.write_labels(root / f"{split}annot" / name, mask)
    return root


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(console, gald_cli, elsewhere, login_node):
    """With the same global batch and no batch statistics, losses and weights agree to 1e-5.

    One process has the global batch at once or accumulates it; two processes share it. Void is
    spread unevenly over the samples. Scores of one network are equal.
    """
    data = camvid_with_uneven_void(elsewhere / "camvid")
    recorder = [
        "+callbacks.frozen._target_=frozen.FrozenNorm",
        "+callbacks.frozen.path=${output_dir}/losses",
    ]
    words = [*ANY_DATA, "data=camvid", f"data.root='{data}'", "data.train_transform=null"]
    words += [*recorder, "optimizer.lr=0.3", "trainer.max_epochs=2"]
    words += ["loss=ohem", "loss.main.min_kept=200", "trainer.log_every_n_steps=1"]
    whole, one, two = (elsewhere / name for name in ("whole", "one", "two"))
    gald_cli("train", *words, f"output_dir={whole}")
    words.append("data.micro_batch_size=2")
    gald_cli("train", *words, f"output_dir={one}")
    machine = {"PYTHONPATH": str(Path(__file__).parent / "data"), "PATH": login_node}
    words += ["trainer=ddp_cpu", "output_dir=two"]
    done = console("train", *words, cwd=elsewhere, **machine)
    assert_success(done)
    assert "srun" not in done.stdout + done.stderr
    curve, processes = losses(whole / "losses")
    assert processes == 1 and losses(two / "losses")[1] == 2
    assert len(curve) == 4 and max(curve) - min(curve) > 1e-3, "it learns"
    weights = read_checkpoint(whole / "checkpoints" / "last.ckpt").weights
    for run in (one, two):
        assert losses(run / "losses")[0] == pytest.approx(curve, rel=1e-5)
        assert logged(run) == pytest.approx(curve, rel=1e-5)
        others = read_checkpoint(run / "checkpoints" / "last.ckpt").weights
        for key, value in weights.items():
            torch.testing.assert_close(value, others[key], rtol=1e-5, atol=1e-5)
    trained = json.loads((two / "results.json").read_text())
    assert trained["val/receipt"]["processes"] == 2 and trained["steps"] == 4
    images = ImageCounts.load(two / "images_val.npz")
    assert images.groups == tuple(name[0] for name in images.names) == tuple("aaaabbb")

    scores = evaluated_by((1, 2), two, console, gald_cli, elsewhere)
    both = ("val/miou", "val/iou/Road", "val/accuracy")
    assert [trained[key] for key in both] == [scores[key] for key in both]


@pytest.mark.slow
def test_more_processes_give_exactly_the_scores_of_one(console, gald_cli, trained, elsewhere):
    """With seven images, a sampler that pads would score some of them twice."""
    run = trained("data.size=[48,64]", "data.val_count=7", "data.num_workers=0")
    evaluated_by((1, 2, 3, 4), run, console, gald_cli, elsewhere)


def evaluated_by(processes, run, console, gald_cli, elsewhere):
    """Check that the scores of a run are equal for these numbers of processes; return them."""
    evaluations = []
    for count in processes:
        words = ["eval", f"ckpt_path={run}", "trainer.accelerator=cpu"]
        folder = elsewhere / f"by {count}"
        if count == 1:
            gald_cli(*words, f"output_dir={folder}")
        else:
            several = ["trainer=ddp_cpu", f"trainer.devices={count}", f"output_dir=by {count}"]
            assert_success(console(*words, *several, cwd=elsewhere))
        scores = json.loads((folder / "results.json").read_text())
        receipt = scores.pop("val/receipt")
        assert receipt.pop("processes") == count
        for key in ("checkpoint", "commit"):  # relative or absolute path; a wheel has no commit
            del scores[key], receipt[key]
        names = ImageCounts.load(folder / "images_val.npz").names
        assert len(names) == 7
        evaluations.append((scores, receipt, names))
    first = evaluations[0]
    assert len([key for key in first[0] if key.startswith("val/")]) > 100
    assert all(other == first for other in evaluations[1:])
    return first[0]


@pytest.mark.slow
def test_cell_of_a_sweep_with_two_processes(console, elsewhere):
    words = ["-m", *TINY, "trainer=ddp_cpu", "seed=1", "name=ablation"]
    assert_success(console("train", *words, "hydra.launcher.jobs=1", cwd=elsewhere))
    folder = elsewhere / "runs" / "ablation"
    (cell,) = Sweep.load(folder).cells
    assert read_state(folder / cell.folder).state == "done"
    results = json.loads((folder / cell.folder / "results.json").read_text())
    assert results["val/receipt"]["processes"] == 2


def test_an_installed_gald_says_where_the_zoo_is(console, elsewhere):
    done = console("compare", "demo", "demo_without_ld", cwd=elsewhere)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "gald: there is no demo; give the path of a run (names are of networks in the zoo, a "
        "folder of gald's repository that is not installed: clone the repository and set "
        "GALD_ZOO=CLONE/zoo)"
    )
