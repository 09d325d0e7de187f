"""What cells of a probe share: features, classes, and the groups of images."""

import json
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from gald.data.datamodule import SegmentationDataModule
from gald.model.backbone import TimmBackbone
from gald.options.check import check_config
from gald.options.roots import Probe as Root
from gald.probe.features import Features, FrozenBackbone
from gald.probe.probe import Probe
from gald.run.building import build_own


class Material(NamedTuple):
    """What a cell trains and is evaluated on.

    Attributes:
        data: the dataset, for its classes.
        backbone: the backbone's shapes.
        splits: features of `train`, `val` and, where its labels are public, `test`.
        whole: the backbone itself, for networks that are kept.
    """

    data: SegmentationDataModule
    backbone: FrozenBackbone
    splits: dict[str, Features]
    whole: TimmBackbone


def check(config: DictConfig) -> None:
    """Check the config of a cell, before features are computed for it.

    Raises:
        ValueError: the network has no backbone of its own, a value does not fit its option, or the
            warm-up is longer than the training.
    """
    if "backbone" not in config.model:
        raise ValueError(
            "gald probe trains what follows a backbone, and a host network has none; set model=gald"
        )
    check_config(config, Root)
    of_one_number = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    build_own(config.scheduler)(of_one_number, build_own(config.probe).steps)


class Bench:
    """Material of the cells of this process; cells with equal data and backbone share it.

    Args:
        device: device of the backbone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._known: dict[str, Material] = {}

    def __getitem__(self, config: DictConfig) -> Material:
        """Return the material of a cell; features that no file has are computed."""
        probe: Probe = build_own(config.probe)
        parts = (config.data, config.model.backbone)
        key = json.dumps(
            [OmegaConf.to_container(part, resolve=True) for part in parts]
            + [list(probe.size), probe.flip > 0, probe.cache_dir]
        )
        if key not in self._known:
            self._known[key] = self._prepare(config, probe)
        return self._known[key]

    def _prepare(self, config: DictConfig, probe: Probe) -> Material:
        data: SegmentationDataModule = build_own(config.data)
        torch.manual_seed(0)  # of a backbone without weights
        backbone: TimmBackbone = build_own(config.model.backbone).eval().to(self.device)
        height, width = probe.size
        names = ("train", "val", "test") if data.has_test else ("train", "val")
        splits = {}
        for name in names:
            dataset = data.make_dataset(name)
            splits[name] = Features(
                dataset,
                backbone,
                (height, width),
                name == "train" and probe.flip > 0,
                probe.cache_dir,
                self.device,
                None if name == "train" else data.groups_in(dataset),
            )
        return Material(data, FrozenBackbone(backbone), splits, backbone)
