"""From a network on disk or on the hub back to tensors and plain data, with nothing unpickled."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from gald.model.segmentor import Segmentor

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # what Predictor.save_pretrained writes
ABOUT = ("config", "class_names", "palette")  # what makes a checkpoint self-sufficient


def find_checkpoint(path: str | Path) -> Path:
    """The file of weights that a path means: itself, or that of a folder.

    Args:
        path: a checkpoint; a run folder, which means its best checkpoint; a folder written by
            `Predictor.save_pretrained`; or OWNER/NAME on the hub, which is fetched once.
    """
    given, path = str(path), Path(path).expanduser()
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", given) and not path.suffix == ".ckpt":
        path = _fetch(given)
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        candidates = (path / WEIGHTS, best, path / "checkpoints" / "last.ckpt")
        path = next((file for file in candidates if file.is_file()), candidates[-1])
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}; name a .ckpt file, the folder of a run or of "
            "save_pretrained, or OWNER/NAME on the hub"
        )
    return path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content; only tensors and plain data are accepted.

    Returns:
        `state_dict`, whose keys begin with `model.`, and `gald`: config, class names and palette;
        of a run also what its training goes on from.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or was not written by gald.
    """
    path = find_checkpoint(path)
    try:
        if path.suffix == ".safetensors":
            content = {"state_dict": load_file(path)}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or "the file ends early").splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}); copy it again or choose another"
        ) from error
    if path.suffix == ".safetensors":
        content["gald"] = _read_config(path.with_name(CONFIG))
    if "gald" not in content or "state_dict" not in content:
        raise ValueError(f"{path} was not written by gald train; give one that was")
    return content


def config_of(content: dict[str, Any]) -> DictConfig:
    """The configuration a checkpoint was trained with."""
    config = OmegaConf.create(content["gald"]["config"])
    # The weights are in the checkpoint; where the backbone's first ones came from matters no more.
    config.model.backbone.weights = None
    return config


def start_from(model: Segmentor, path: str | Path) -> None:
    """Give a network the weights of another run or of a converted checkpoint.

    Raises:
        ValueError: the checkpoint is of another network; the first difference is named.
    """
    load_weights(model, read_checkpoint(path), find_checkpoint(path))


def load_weights(model: Segmentor, content: dict[str, Any], path: Path) -> None:
    """Give a network the weights of a checkpoint's content, which was read from `path`.

    Raises:
        ValueError: they are of another network; the first difference is named.
    """
    weights, own = _weights(content), model.state_dict()
    for key in sorted(weights.keys() | own.keys()):
        theirs, ours = (tuple(d[key].shape) if key in d else "nothing" for d in (weights, own))
        if theirs != ours:
            raise ValueError(
                f"{path} has {theirs} where this network has {ours} for {key}; "
                "choose the model options and the data that it was trained with"
            )
    model.load_state_dict(weights)


def _weights(content: dict[str, Any]) -> dict[str, Tensor]:
    prefix = "model."
    state = content["state_dict"].items()
    return {key.removeprefix(prefix): value for key, value in state if key.startswith(prefix)}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}, which says what the weights beside it are; copy the whole folder"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); copy the folder again") from error
    missing = [key for key in ABOUT if key not in (about if isinstance(about, dict) else ())]
    if missing:
        raise ValueError(f"{path} lacks the key {missing[0]}; copy the folder again")
    return about


def _fetch(name: str) -> Path:
    """The folder of a network on the hub, from the cache where it is there already."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:
        raise FileNotFoundError(
            f"no run or checkpoint lies at {name}, and the hub gave no network of that name "
            f"({type(error).__name__}); correct the path, or go online"
        ) from error
