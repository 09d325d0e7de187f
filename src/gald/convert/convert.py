"""`gald convert FILE --to FOLDER`: convert a state dict of the authors to a run folder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from gald.config import compose
from gald.convert.gald_dgcnet import (
    Network,
    State,
    has_aux_head,
    identify,
    prefix_of,
    rename,
)
from gald.data.cityscapes import Cityscapes
from gald.data.folder_classes import distinct_colour
from gald.run.atomic import new_folder, refuse_filled
from gald.run.building import build_own
from gald.run.checkpoint_io import save_checkpoint
from gald.run.new_folders import refuse_unwritable
from gald.run.weight_file import (
    collect_tensors,
    find_defect,
    preference,
    read_weight_file,
    split_prefix,
)

_BESIDE = ("n_averaged",)  # a counter in torch's averaged models


def convert(source: Path, folder: Path, input: str | None = None) -> str:
    """Convert a state dict of GALD-DGCNet@be7ebfe to a run folder; return a summary.

    The folder appears with `checkpoints/best.ckpt` and `config.yaml`, or not at all. Only tensors
    and plain data are unpickled. A network of 19 classes gets the class names of Cityscapes.

    Args:
        source: file saved by the authors' training script, or by another program that kept their
            names. A prefix such as `module.` and dicts around the state dict, such as `model`, are
            removed; an average is preferred. Without tensors of the auxiliary head (`dsn.`), the
            converted network has none.
        folder: output folder; must be empty or must not exist.
        input: `bgr` or `rgb`, as in TimmBackbone. A state dict does not contain this; None uses
            the input of the authors' scripts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the folder is not empty, the file is not such a state dict, a key is unknown,
            missing or of another shape, or a tensor is nan.
    """
    source, folder = source.expanduser(), folder.expanduser().absolute()
    refuse_filled(folder, "choose another folder with --to")
    refuse_unwritable(folder.parent, "--to")
    state, place = _read(source)
    name, network, classes = identify(state, source)
    what = f"{name} with {classes} classes"
    aux_head = has_aux_head(state)
    cfg = _configure(name, network, input or network.input, aux_head)
    cfg.output_dir = str(folder)
    with torch.device("meta"):  # only names and shapes are needed
        ours = build_own(cfg.model, num_classes=classes).state_dict()
    renamed = rename(state, ours, network, source, what)
    content = {
        "state_dict": {f"model.{key}": value for key, value in renamed.items()},
        "gald": {"config": OmegaConf.to_container(cfg, resolve=True)} | _classes(classes),
    }
    with new_folder(folder) as partial:
        (partial / "checkpoints").mkdir()
        save_checkpoint(content, partial / "checkpoints" / "best.ckpt")
        OmegaConf.save(cfg, partial / "config.yaml", resolve=True)
    if not aux_head:
        what += " and without an auxiliary head"
    return f"{folder}: {what}, input {cfg.model.backbone.input}{place}"


def _read(source: Path) -> tuple[State, str]:
    """Return the tensors of the authors' network in a file, and from where in it they are."""
    content = read_weight_file(source)
    if isinstance(content, Mapping) and "gald" in content:
        raise ValueError(f"{source} is already a checkpoint of gald; use it without converting")
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} contains a {type(content).__name__}; give a state dict")
    found, others = _find(source, collect_tensors(content))
    wrappers, prefix = split_prefix(content, found)
    for name in wrappers:
        content = content[name]
    state = {}
    for key, value in content.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise ValueError(f"{key} in {source} is not a tensor; give a state dict")
        if key in _BESIDE:
            continue
        if not key.startswith(prefix):
            raise ValueError(
                f"{source} has {key}, which lacks the prefix {prefix} of the network's tensors; "
                "give the state dict of one network"
            )
        state[key.removeprefix(prefix)] = value
    defect = find_defect(state)
    if defect is not None:
        raise ValueError(f"the weights in {source} are useless: {defect}; give another file")
    place = f", from {'.'.join(wrappers)}" if wrappers else ""
    place += f", without the prefix {prefix}" if prefix else ""
    return state, place + (f", not from {', '.join(others)}" if others else "")


def _find(source: Path, tensors: State) -> tuple[str, list[str]]:
    """Return the prefix of the network to convert, and those of others; averages come first."""
    prefixes = sorted({found for key in tensors if (found := prefix_of(key)) is not None})
    prefixes.sort(key=preference)
    if len(prefixes) > 1 and preference(prefixes[0]) == preference(prefixes[1]):
        raise ValueError(
            f"{source} contains two networks, under {prefixes[0].rstrip('.') or 'its top level'} "
            f"and under {prefixes[1].rstrip('.')}; save one of them alone with "
            "torch.save(model.state_dict(), FILE)"
        )
    if not prefixes:
        identify(tensors, source)  # raises an error about their keys
    return prefixes[0], [prefix.rstrip(".") for prefix in prefixes[1:]]


def _configure(name: str, network: Network, input: str, aux_head: bool) -> DictConfig:
    overrides = [
        f"experiment={network.experiment}",
        "data=cityscapes",
        f"name={name}",
        f"model/backbone=resnet{name.rpartition('res')[2]}_official",
        f"model.backbone.input={input}",
    ]
    cfg = compose("train", overrides)
    if not aux_head:
        cfg.model.aux_head = None  # not as an override, since experiments set its options
    return cfg


def _classes(number: int) -> dict[str, list[object]]:
    """Return names and colours: those of Cityscapes if the number matches, else generated ones."""
    if number == len(Cityscapes.class_names):
        names, palette = Cityscapes.class_names, Cityscapes.palette
    else:
        names = tuple(f"class_{index}" for index in range(number))
        palette = tuple(distinct_colour(index) for index in range(number))
    return {"class_names": list(names), "palette": [list(colour) for colour in palette]}
