"""From a checkpoint on disk back to a network, with nothing unpickled."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gald.models.segmentor import Segmentor


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best one of a run folder."""
    path = Path(path).expanduser()
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        path = best if best.is_file() else path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}; give ckpt_path a .ckpt file or the folder of a run"
        )
    return path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content; only tensors and plain data are accepted.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or was not written by gald.
    """
    path = find_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}); copy it again or choose another"
        ) from error
    if "gald" not in content or "state_dict" not in content:
        raise ValueError(f"{path} was not written by gald train; give one that was")
    return content


def config_of(content: dict[str, Any]) -> DictConfig:
    """The configuration a checkpoint was trained with."""
    config = OmegaConf.create(content["gald"]["config"])
    # The weights are in the checkpoint; where the backbone's first ones came from matters no more.
    config.model.backbone.weights = None
    return config


def load(path: str | Path) -> Segmentor:
    """The trained network of a run, ready to predict: `gald.load("runs/demo/...")`.

    Args:
        path: a checkpoint, or a run folder, which means its best checkpoint.
    """
    content = read_checkpoint(path)
    classes = len(content["gald"]["class_names"])
    model = instantiate(config_of(content).model, num_classes=classes)
    prefix = "model."
    state = {
        key.removeprefix(prefix): value
        for key, value in content["state_dict"].items()
        if key.startswith(prefix)
    }
    model.load_state_dict(state)
    return model.eval()
