"""A run of torchrun that starts again after a failure goes on where it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


def test_elastic_restart_goes_on_in_the_same_folder(tmp_path):
    words = [
        "data.size=[48,64]",
        "data.train_transform.crop_size=[40,48]",
        "data.train_count=16",
        "data.val_count=3",
        "data.global_batch_size=4",
        "data.num_workers=0",
        "model.channels=16",
        "model.backbone.name=test_resnet",
        "metrics=miou",
        "test=false",
        "logger=csv",
        "trainer=ddp_cpu",
        "trainer.max_epochs=3",
        "callbacks.last.minutes=0",
        "ckpt_path=auto",
    ]
    scores = []
    for name in ("calm", "rough"):
        fault = ["+callbacks.fault._target_=faults.KilledOnce"] if name == "rough" else []
        command = ["torchrun", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d"]
        command += [f"--rdzv-id={name}", "--rdzv-endpoint=localhost:0", "--max-restarts=2"]
        python = str(Path(sys.executable).parent)
        done = subprocess.run(
            [f"{python}/{command[0]}", *command[1:], "-m", "gald", "train", *words, *fault],
            cwd=tmp_path,
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        folder = tmp_path / "runs" / "train" / name
        assert [path.name for path in folder.parent.iterdir() if path.name == name] == [name]
        results = json.loads((folder / "results.json").read_text())
        scores.append(
            {k: v for k, v in results.items() if k.startswith("val/") and "receipt" not in k}
        )
    assert sorted(path.name for path in (tmp_path / "runs" / "train").iterdir()) == [
        "calm",
        "rough",
    ]
    assert scores[0] == scores[1]
