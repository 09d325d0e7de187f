"""Reads a network from disk or from the hub as tensors and plain data; nothing is unpickled."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

from gald.run.old_names import renew_config, renew_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # what Predictor.save_pretrained writes
ABOUT = ("config", "class_names", "palette")  # what makes a checkpoint self-sufficient
PREFIX = "model."  # of the network's weights in a training checkpoint


class Checkpoint(NamedTuple):
    """A network as it was saved.

    Attributes:
        path: the file of weights.
        weights: the network's state dict.
        config: resolved configuration of its training, plain data under today's names.
        class_names: names of the K classes.
        palette: K colours.
        content: all that the file holds; of a training run also the state to resume from.
    """

    path: Path
    weights: dict[str, Tensor]
    config: dict[str, Any]
    class_names: list[str]
    palette: list[list[int]]
    content: dict[str, Any]

    @property
    def resumable(self) -> bool:
        """Whether a training can go on from it."""
        return "optimizer_states" in self.content


def find_checkpoint(path: str | Path) -> Path:
    """The file of weights that a path means: itself, or that of a folder.

    Args:
        path: a checkpoint; a run folder, which means its best checkpoint; a folder written by
            `Predictor.save_pretrained`; or OWNER/NAME on the hub, which is fetched once.

    Raises:
        FileNotFoundError: there is none.
    """
    given, path = str(path), Path(path).expanduser()
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", given) and path.suffix != ".ckpt":
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


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain data are accepted.

    Args:
        path: as in `find_checkpoint`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or was not written by gald.
    """
    path = find_checkpoint(path)
    try:
        if path.suffix == ".safetensors":
            content: dict[str, Any] = {"state_dict": load_file(path)}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or "the file ends early").splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}); copy it again or choose another"
        ) from error
    if path.suffix == ".safetensors":
        content["gald"] = _read_config(path.with_name(CONFIG))
    about = content.get("gald")
    if not (isinstance(about, dict) and about.keys() >= set(ABOUT) and "state_dict" in content):
        raise ValueError(f"{path} was not written by gald train; name a checkpoint that was")
    state = renew_weights(content["state_dict"])
    return Checkpoint(
        path,
        {key.removeprefix(PREFIX): v for key, v in state.items() if key.startswith(PREFIX)},
        renew_config(about["config"]),
        list(about["class_names"]),
        [list(colour) for colour in about["palette"]],
        content,
    )


def without_initial_weights(config: dict[str, Any]) -> DictConfig:
    """A checkpoint's configuration, without where the backbone's first weights came from.

    They are in the checkpoint, and their source may need a network.
    """
    copied = OmegaConf.create(config)
    copied.model.backbone.weights = None
    return copied


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        ValueError: they are of another network; the first difference is named.
    """
    weights, own = checkpoint.weights, model.state_dict()
    for key in sorted(weights.keys() | own.keys()):
        theirs, ours = (tuple(d[key].shape) if key in d else "nothing" for d in (weights, own))
        if theirs != ours:
            raise ValueError(
                f"{checkpoint.path} has {theirs} where this network has {ours} for {key}; "
                "choose the model options and the data that it was trained with"
            )
    model.load_state_dict(weights)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}, which describes the weights beside it; copy the whole folder"
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
