"""Lightning's trainer, with what would go wrong on many devices said beforehand."""

import os
import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import CUDAAccelerator

TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # as output_dir names folders by itself


def build_trainer(**options: Any) -> pl.Trainer:
    """A trainer of these options, all of them Lightning's own.

    Raises:
        ValueError: batch norm is to be synchronised between processes on the CPU, the machine has
            no such devices, or processes that another program started would each make a folder.
    """
    _share_one_folder(options.get("default_root_dir"))
    try:
        trainer = pl.Trainer(**options)
    except MisconfigurationException as error:
        raise ValueError(
            f"trainer.accelerator={options.get('accelerator')} with "
            f"trainer.devices={options.get('devices')} does not fit this machine "
            f"({' '.join(str(error).split())}); trainer=default takes what there is"
        ) from error
    on_gpu = isinstance(trainer.accelerator, CUDAAccelerator)
    if options.get("sync_batchnorm") and trainer.world_size > 1 and not on_gpu:
        raise ValueError(
            f"batch norm cannot be synchronised between {trainer.world_size} processes on the CPU; "
            "add trainer.sync_batchnorm=false, or use GPUs"
        )
    return trainer


def _share_one_folder(folder: str | os.PathLike[str] | None) -> None:
    count = max(int(os.environ.get(key, 1)) for key in ("WORLD_SIZE", "SLURM_NTASKS"))
    outside = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
    by_time = folder is not None and TIME.fullmatch(Path(folder).name)
    # Lightning's own further processes are told the folder; a cell's are too.
    if outside and count > 1 and by_time and "GALD_RUN_ID" not in os.environ:
        raise ValueError(
            f"each of {count} processes would name a run folder by its own clock; set the variable "
            "GALD_RUN_ID to one name for all before they start, or add output_dir=FOLDER"
        )
