"""`gald convert FILE --to FOLDER`: convert a state dict of the authors to a run folder."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from gald.cli import Arguments
from gald.config import compose
from gald.convert.gald_dgcnet import Network, State, identify, rename
from gald.data.cityscapes import Cityscapes
from gald.data.folder_classes import distinct_colour
from gald.run.atomic import new_folder, refuse_filled


def main() -> None:
    """Convert the file of the command line, and print the command that evaluates it."""
    parser = Arguments("gald convert", description="convert a state dict of the authors")
    parser.add_argument(
        "source", type=Path, metavar="FILE", help="a .pth of GALD_ or DualSeg_, _res50 or _res101"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--input",
        choices=("bgr", "rgb"),
        help="input of its training: bgr in 0..255 minus a mean, or rgb normalised as for "
        "ImageNet (default: as in the authors' scripts, bgr for GALD and rgb for DualSeg)",
    )
    flags = parser.parse_args(sys.argv[1:])
    print(convert(flags.source, flags.to, flags.input))
    print(f"evaluate it with: gald eval ckpt_path={flags.to} data=cityscapes")


def convert(source: Path, folder: Path, input: str | None = None) -> str:
    """Convert a state dict of GALD-DGCNet@be7ebfe to a run folder; return a summary.

    The folder appears with `checkpoints/best.ckpt` and `config.yaml`, or not at all. Only tensors
    and plain data are unpickled. A network of 19 classes gets the class names of Cityscapes.

    Args:
        source: file saved by the authors' training script, with or without `module.` before every
            key, plain or under the key `state_dict`.
        folder: output folder; must be empty or must not exist.
        input: `bgr` or `rgb`, as in TimmBackbone. A state dict does not contain this; None uses
            the input of the authors' scripts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the folder is not empty, the file is not such a state dict, or a key is
            unknown, missing or of another shape.
    """
    source, folder = source.expanduser(), folder.expanduser().absolute()
    refuse_filled(folder, "choose another folder with --to")
    state = _read(source)
    name, network, classes = identify(state, source)
    what = f"{name} with {classes} classes"
    cfg = _configure(name, network, input or network.input)
    cfg.output_dir = str(folder)
    with torch.device("meta"):  # only names and shapes are needed
        ours = instantiate(cfg.model, num_classes=classes).state_dict()
    renamed = rename(state, ours, network, source, what)
    content = {
        "state_dict": {f"model.{key}": value for key, value in renamed.items()},
        "gald": {"config": OmegaConf.to_container(cfg, resolve=True)} | _classes(classes),
    }
    with new_folder(folder) as partial:
        (partial / "checkpoints").mkdir()
        torch.save(content, partial / "checkpoints" / "best.ckpt")
        OmegaConf.save(cfg, partial / "config.yaml", resolve=True)
    return f"{folder}: {what}, input {cfg.model.backbone.input}"


def _read(source: Path) -> State:
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}; give a .pth of the authors' networks")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{source} is damaged or contains more than tensors and plain data, which gald does "
            "not unpickle; give a file written by torch.save(model.state_dict(), FILE)"
        ) from error
    if isinstance(content, Mapping) and "gald" in content:
        raise ValueError(f"{source} is already a checkpoint of gald; use it without converting")
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} contains a {type(content).__name__}; give a state dict")
    for key, value in content.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise ValueError(
                f"{key} in {source} is a {type(value).__name__}, not a tensor; give a state dict"
            )
    prefix = "module." if all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def _configure(name: str, network: Network, input: str) -> DictConfig:
    overrides = [
        f"experiment={network.experiment}",
        "data=cityscapes",
        f"name={name}",
        f"model/backbone=resnet{name.rpartition('res')[2]}_official",
        f"model.backbone.input={input}",
    ]
    return compose("train", overrides)


def _classes(number: int) -> dict[str, list[object]]:
    """Return names and colours: those of Cityscapes if the number matches, else generated ones."""
    if number == len(Cityscapes.class_names):
        names, palette = Cityscapes.class_names, Cityscapes.palette
    else:
        names = tuple(f"class_{index}" for index in range(number))
        palette = tuple(distinct_colour(index) for index in range(number))
    return {"class_names": list(names), "palette": [list(colour) for colour in palette]}
