"""From a checkpoint on disk back to a network, with nothing unpickled."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from gald.models.segmentor import Segmentor


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best one of a run folder."""
    path = Path(path).expanduser()
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        path = best if best.is_file() else path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}; name a .ckpt file or the folder of a run"
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
    model.load_state_dict(_weights(content))
    return model.eval()


def start_from(model: Segmentor, path: str | Path) -> None:
    """Give a network the weights of another run or of a converted checkpoint.

    Raises:
        ValueError: the checkpoint is of another network; the first difference is named.
    """
    weights, own = _weights(read_checkpoint(path)), model.state_dict()
    for key in sorted(weights.keys() | own.keys()):
        theirs, ours = (tuple(d[key].shape) if key in d else "nothing" for d in (weights, own))
        if theirs != ours:
            raise ValueError(
                f"{find_checkpoint(path)} has {theirs} where this network has {ours} for {key}; "
                "choose the model options and the data that it was trained with"
            )
    model.load_state_dict(weights)


def _weights(content: dict[str, Any]) -> dict[str, Tensor]:
    prefix = "model."
    state = content["state_dict"].items()
    return {key.removeprefix(prefix): value for key, value in state if key.startswith(prefix)}
