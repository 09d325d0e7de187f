"""Keeps a run's output to what its reader can use."""

import logging
import warnings


def quiet() -> None:
    """Silence notes of our dependencies that ask nothing of the user."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in (
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 on torch 2.9 and later
        r"The number of training batches .* is smaller than the logging interval",
        r"The '\w+_dataloader' does not have many workers",  # num_workers is the user's choice
        r"Checkpoint directory .* exists and is not empty",  # a resume; a fresh run is refused
        r"The dirpath has changed from",
        r"The `srun` command is available on your system but is not used",  # a login node
        r"It is recommended to use `self.log\(.*sync_dist=True",  # all processes log one sum
    ):
        warnings.filterwarnings("ignore", message=noise)
