"""Several processes: one without an image, and one that is killed before training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gald.data.synthetic import SyntheticDataModule

TINY = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=6",
    "data.val_count=2",
    "data.test_count=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer=ddp_cpu",
    "trainer.max_epochs=1",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "callbacks=[checkpoint,progress,val_loss]",
]


def start(*words):
    command = [sys.executable, "-m", "gald", "train", *TINY, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )


def further(process):
    """Return the ids of the further processes of a run."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = []
    for pid in pids:
        if b"train_ddp_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(int(pid))
    return found


def test_a_process_without_an_image_gets_one_batch_without_any(monkeypatch):
    data = SyntheticDataModule(size=[32, 48], val_count=2, num_workers=0)
    data.setup("fit")
    names = []
    for rank in range(3):
        monkeypatch.setattr(data, "_rank_and_world_size", lambda rank=rank: (rank, 3))
        batches = list(data.val_dataloader())
        assert len(batches) == len(data.val_dataloader()) == 1
        names += [name for batch in batches for part in batch for name in part["name"]]
    assert len(names) == len(set(names)) == 2


@pytest.mark.slow
def test_a_process_without_an_image_takes_part_in_the_results(tmp_path):
    words = ("trainer.devices=3", "data.global_batch_size=3", f"output_dir={tmp_path / 'run'}")
    process = start(*words)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and (tmp_path / "run" / "results.json").is_file(), out


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_process_killed_before_training_ends_the_others_with_a_sentence(first, tmp_path):
    process = start("data.global_batch_size=2", f"output_dir={tmp_path / 'run'}")
    deadline = time.monotonic() + 120
    while not (others := further(process)) and time.monotonic() < deadline:
        time.sleep(0.1)
    killed_at = time.monotonic()
    os.kill(process.pid if first else others[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=60)  # until all have ended
    assert time.monotonic() - killed_at < 40  # most of it are the imports of the other
    name = "the first process" if first else "process 1"
    assert [line for line in out.splitlines() if name in line and "so the others end" in line]
    assert process.returncode == -signal.SIGKILL
