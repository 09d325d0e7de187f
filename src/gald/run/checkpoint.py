"""Networks read from disk or from the hub as tensors and plain data; nothing is unpickled."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from torch import Tensor, nn

from gald.options.ranges import Length, Range, Text, Whole
from gald.run.class_names import unusable
from gald.run.old_names import renew_config, renew_weights
from gald.run.plain import plain_data
from gald.run.provenance import sha256
from gald.run.shape import check_shape, shown
from gald.run.text_file import read_json, refuse_bulky
from gald.run.trunk import TRUNKS, trunk_key
from gald.run.weight_file import find_defect, read_weight_file
from gald.run.zoo import ZOO_PREFIX, advice, find_entry

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # files that Predictor.save_pretrained writes
CHECKSUM = "weights_sha256"  # key of the config: the checksum of the weights
SELF = "config_sha256"  # key of the config: the checksum of its other values
# Keys that make a checkpoint self-contained, and their values
ABOUT = {
    "config": Mapping[str, Any],
    "class_names": Annotated[list[Text], Length(1)],
    "palette": list[Annotated[list[Annotated[int, Range(least=0, most=255)]], Length(3, 3)]],
}
# Keys from which a training is resumed, written by Lightning
TRAINING_STATE = {
    "epoch": Whole,
    "global_step": Whole,
    "pytorch-lightning_version": Text,
    "loops": Mapping[str, Any],
    "callbacks": Mapping[str, Any],
    "optimizer_states": Annotated[list[Mapping[str, Any]], Length(1)],
    "lr_schedulers": list[Mapping[str, Any]],
}
_AGAIN = "copy or download it again, or choose another"
PREFIX = "model."  # of the network's weights in a training checkpoint


class Checkpoint(NamedTuple):
    """Saved network: weights, configuration, class names and palette.

    Attributes:
        path: the weights file.
        weights: the network's state dict.
        config: resolved configuration of the training, plain data with current names.
        class_names: names of the K classes.
        palette: K colours.
        content: everything in the file; for a training run this includes the state to resume from.
    """

    path: Path
    weights: dict[str, Tensor]
    config: dict[str, Any]
    class_names: list[str]
    palette: list[list[int]]
    content: dict[str, Any]

    @property
    def config_file(self) -> Path:
        """The file that holds the configuration; the weights of a saved folder lie beside it."""
        return _config_file(self.path)

    @property
    def resumable(self) -> bool:
        """Whether a training can be resumed from it."""
        return "optimizer_states" in self.content


def find_checkpoint(path: str | Path) -> Path:
    """Find the weights file for a path.

    Args:
        path: a checkpoint; a run folder, which stands for its best checkpoint; a folder written by
            `Predictor.save_pretrained`; the name of a network of the zoo; or OWNER/NAME on the hub,
            which is downloaded once. A path that exists comes first.

    Raises:
        FileNotFoundError: there is no such file.
    """
    given, path = str(path), Path(path).expanduser()
    exists = path.exists()
    if not exists:
        if (entry := find_entry(given)) is not None:
            path = entry
        elif _is_hub_id(given):
            path = _fetch(given)
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        candidates = (path / WEIGHTS, best, path / "checkpoints" / "last.ckpt")
        path = next((file for file in candidates if file.is_file()), candidates[-1])
    if not path.is_file():
        remedy = (
            "give a .ckpt file, a run folder, a folder written by save_pretrained, a name of the "
            "zoo, or OWNER/NAME on the hub"
        )
        if exists and (entry := find_entry(given)) is not None:
            remedy = f"for the network {given} of the zoo give {entry}"
        elif not exists:
            remedy = advice(given, remedy)
        raise FileNotFoundError(f"no checkpoint at {path}; {remedy}")
    return path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain data are accepted.

    Args:
        path: as in `find_checkpoint`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, was not written by gald, has a config that is not plain
            data, or has a weight that is nan or infinite.
    """
    path = find_checkpoint(path)
    try:
        content = read_weight_file(path)
    except ValueError as error:
        if (good := whole_neighbour(path)) is None:
            raise
        raise ValueError(f"{str(error).rpartition(';')[0]}; {good} is whole, give that") from error
    if path.suffix == ".safetensors":
        about = _read_config(_config_file(path))
        if about.get(CHECKSUM) not in (None, sha256(path)):
            raise ValueError(
                f"{path} is damaged: its SHA-256 is not the one in {_config_file(path)}; "
                "copy the folder again, or export it again"
            )
        content = {"state_dict": content, "gald": about}
    about = content.get("gald") if isinstance(content, dict) else None
    if not (isinstance(about, dict) and about.keys() >= set(ABOUT) and "state_dict" in content):
        raise ValueError(
            f"{path} was not written by gald train; give a checkpoint that was (weights of a "
            "backbone go into model.backbone.weights=FILE, networks of the authors into "
            "`gald convert FILE --to FOLDER`)"
        )
    refuse_bulky([about[key] for key in ABOUT], path, "get it from its owners again")
    config = plain_data(about["config"], _config_file(path))
    _check_shapes(path, content, about)
    for name in map(str, about["class_names"]):
        if fault := unusable(name):
            raise ValueError(
                f"{path} has a class named {name[:40]!a} with {fault}; get the file again from "
                "its owners"
            )
    state = renew_weights(content["state_dict"])
    weights = {key.removeprefix(PREFIX): v for key, v in state.items() if key.startswith(PREFIX)}
    defect = find_defect(weights)
    if defect is not None:
        raise ValueError(
            f"the weights in {path} are useless: {defect}; choose an earlier checkpoint, or train "
            "again with a lower optimizer.lr or with trainer.gradient_clip_val=1.0"
        )
    return Checkpoint(
        path,
        weights,
        renew_config(config),
        list(about["class_names"]),
        [list(colour) for colour in about["palette"]],
        content,
    )


def whole_neighbour(path: Path) -> Path | None:
    """Return the first whole checkpoint in the folder of a damaged one: the best, else the last."""
    names = ("best.ckpt", "last.ckpt")
    others = [path.with_name(name) for name in names]
    others += sorted(set(path.parent.glob("*.ckpt")) - set(others), reverse=True)
    for other in others:
        if other != path and other.is_file() and path.suffix == ".ckpt":
            with suppress(ValueError):
                read_weight_file(other)
                return other
    return None


def check_training_state(checkpoint: Checkpoint) -> None:
    """Refuse to resume from a checkpoint if its training state has another shape than ours.

    Raises:
        ValueError: the message names the first key that is wrong.
    """
    remedy = (
        f"copy the file again, or start a new run from its weights with init_from={checkpoint.path}"
    )
    check_shape(checkpoint.path, checkpoint.content, TRAINING_STATE, remedy)
    for number, state in enumerate(checkpoint.content["optimizer_states"]):
        parts = {"state": Mapping[Any, Any], "param_groups": list[Mapping[str, Any]]}
        place = f"optimizer_states.{number}"
        check_shape(checkpoint.path, state, parts, remedy, place)
        for key, averages in state["state"].items():
            check_shape(checkpoint.path, averages, {}, remedy, f"{place}.state.{key}")
            for name, value in averages.items():
                if not (value is None or isinstance(value, Tensor | int | float)):
                    raise ValueError(
                        f"{checkpoint.path} holds {shown(value)} as {place}.state.{key}.{name}, "
                        f"where a tensor must be; {remedy}"
                    )


def _check_shapes(path: Path, content: Any, about: Any) -> None:
    """Refuse a checkpoint with another kind of value than gald writes."""
    file = _config_file(path)
    place = "gald." if file == path else ""
    check_shape(file, about, ABOUT, _AGAIN, place.rstrip("."))
    names, colours = about["class_names"], about["palette"]
    if len(colours) != len(names):
        raise ValueError(
            f"{file} has {len(names)} class names and {len(colours)} colours; {_AGAIN}"
        )
    check_shape(file, about["config"], {"model": Mapping[str, Any]}, _AGAIN, f"{place}config")
    model = about["config"]["model"]
    key = trunk_key(model) or TRUNKS[0]
    check_shape(file, model, {key: Mapping[str, Any]}, _AGAIN, f"{place}config.model")
    check_shape(path, content, {"state_dict": Mapping[str, Any]}, _AGAIN)
    for key, value in content["state_dict"].items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise ValueError(
                f"{path} holds {shown(value)} as state_dict.{key}, where a tensor must be; {_AGAIN}"
            )


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the weights of a checkpoint into a network.

    Raises:
        ValueError: they belong to another network; the message names the first difference.
    """
    refuse_other_weights(model, checkpoint)
    model.load_state_dict(checkpoint.weights)


def refuse_other_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Raise a `ValueError` that names the first difference if the weights are another network's."""
    weights, own = checkpoint.weights, model.state_dict()
    for key in sorted(weights.keys() | own.keys()):
        theirs, ours = (tuple(d[key].shape) if key in d else "nothing" for d in (weights, own))
        if theirs != ours:
            raise ValueError(
                f"{checkpoint.path} has {theirs} where this network has {ours} for {key}; "
                "choose the model options and the data that it was trained with"
            )


def _config_file(path: Path) -> Path:
    return path.with_name(CONFIG) if path.suffix == ".safetensors" else path


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path} to describe the weights next to it; copy the whole folder"
        )
    about = read_json(path, "copy the folder again")
    check_shape(path, about, ABOUT, "copy the folder again")
    # Folders of earlier versions have no checksum; a flipped byte must not make it look like that.
    damaged = any(_is_nearly(key, SELF) for key in about)
    if damaged or about.get(SELF) not in (None, config_checksum(about)):
        raise ValueError(
            f"{path} is damaged: its values do not have the SHA-256 that it states as {SELF}; copy "
            f"the folder again, or remove {SELF} if you have changed a value yourself"
        )
    return about


def config_checksum(about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the values of a config.json, without its own checksum."""
    rest = {key: value for key, value in about.items() if key != SELF}
    plain = json.loads(json.dumps(rest))  # as a reader gets them: keys are text
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _is_nearly(key: str, word: str) -> bool:
    """Return whether a key differs from a word in one character."""
    return len(key) == len(word) and sum(map(str.__ne__, key, word)) == 1


def _is_hub_id(given: str) -> bool:
    """Return whether a text has the form OWNER/NAME; `zoo/NAME` is of the zoo and never fetched."""
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", given) and not given.endswith(".ckpt")
    return bool(known) and not given.startswith(ZOO_PREFIX)


def _fetch(name: str) -> Path:
    """Return the local folder of a network on the hub; download it unless it is cached."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:
        raise FileNotFoundError(
            f"there is no run or checkpoint at {name}, and downloading it from the hub failed "
            f"({type(error).__name__}); correct the path, or connect to the internet"
        ) from error
