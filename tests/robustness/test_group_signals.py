"""A signal to all processes of a job, as terminals and clusters send it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GALD = Path(sys.executable).with_name("gald")
WORDS = ["data=synthetic", "data.train_count=400", "data.val_count=400", "data.num_workers=2"]
WORDS += ["trainer.accelerator=cpu", "metrics=miou"]
TRAIN = [*WORDS, "model.backbone.name=test_resnet", "model.channels=16", "trainer.max_epochs=99"]
TRAIN += ["data.train_transform.crop_size=[64,96]", "data.size=[64,96]", "logger=csv"]
EVAL = [*WORDS, "data.size=[480,640]"]


def workers_of(pid):
    """Return the processes that a process started and that still have its command line."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [child for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == own]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_a_signal_to_the_workers_too_ends_the_run_as_one_to_it_alone(verb, name, trained, tmp_path):
    words = TRAIN if verb == "train" else [f"ckpt_path={trained()}", *EVAL]
    command = [str(GALD), verb, *words, f"output_dir={tmp_path / 'run'}"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path
        )
    end = time.monotonic() + 120
    while len(workers_of(run.pid)) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(3)
    os.killpg(run.pid, getattr(signal, name))
    assert run.wait(60) == 75, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert f"stopped by {name}" in said
    assert "Traceback" not in said and "DataLoader worker" not in said
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(run.pid, 0)
