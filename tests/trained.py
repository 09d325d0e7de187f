"""A run folder as training leaves it, of a tiny network with random weights."""

from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gald.conf_dir import CONF_DIR
from gald.data.synthetic import SyntheticStreets

TINY = ["model.channels=16", "model.backbone.name=test_resnet"]


def content(*overrides: str) -> dict:
    """What the checkpoint holds."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", [*TINY, "output_dir=runs/tiny", *overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model, num_classes=len(SyntheticStreets.class_names))
    return {
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "gald": {
            "config": OmegaConf.to_container(cfg, resolve=True),
            "class_names": list(SyntheticStreets.class_names),
            "palette": [list(colour) for colour in SyntheticStreets.palette],
        },
    }


def run(folder: Path, *overrides: str) -> Path:
    """Write the folder."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content(*overrides), folder / "checkpoints" / "best.ckpt")
    return folder
