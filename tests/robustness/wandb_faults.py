"""Callback that takes from wandb what it needs, in the middle of a training."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from pytorch_lightning.callbacks import Callback
from wandb.sdk.data_types._private import MEDIA_TMP


class Taken(Callback):
    """Removes wandb's files in the folder for temporary files, or both folders, or its service."""

    def __init__(self, what, folder):
        self.what, self.folder = what, Path(folder)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != 1:
            return
        assert tempfile.gettempdir() == str(self.folder)
        if self.what == "service":
            (service,) = services(os.getpid())
            os.kill(service, signal.SIGKILL)
            return
        # wandb names its folder when it is imported, perhaps by the server that forks the runs.
        media = Path(MEDIA_TMP.name)
        assert media.is_dir() and media.name.endswith("wandb-media"), media
        for folder in (self.folder, media):
            shutil.rmtree(folder, ignore_errors=True)
            if self.what == "files":
                folder.mkdir(exist_ok=True)


def services(parent):
    """Return the ids of the services that wandb has started for a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if b"wandb-core" in words[0] and str(parent).encode() in words:
            found.append(int(path.name))
    return found
