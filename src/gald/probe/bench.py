"""What cells of a probe share: features, classes, and the groups of images."""

import functools
import json

import torch
from omegaconf import DictConfig, OmegaConf

from gald.data.datamodule import SegmentationDataModule
from gald.model.backbone import TimmBackbone
from gald.options.check import check_config
from gald.options.roots import Probe as Root
from gald.probe.features import Features, FrozenBackbone
from gald.probe.probe import Probe
from gald.run.building import build_own


class Material:
    """What a cell trains and is evaluated on.

    Args:
        data: the dataset.
        whole: the backbone itself, for features, and for networks that are kept.
        probe: the size of the images, and where features are cached.
        device: device of the backbone.

    Attributes:
        backbone: the backbone's shapes.
    """

    def __init__(
        self, data: SegmentationDataModule, whole: TimmBackbone, probe: Probe, device: torch.device
    ) -> None:
        self.data, self.whole, self._probe, self._device = data, whole, probe, device
        self.backbone = FrozenBackbone(whole)

    @functools.cached_property
    def splits(self) -> dict[str, Features]:
        """Features of `train`, `val` and, where its labels are public, `test`.

        They are computed when they are first wanted, after the network of the cell has been built.
        """
        height, width = self._probe.size
        splits = {}
        for name in ("train", "val", "test") if self.data.has_test else ("train", "val"):
            dataset = self.data.make_dataset(name)
            splits[name] = Features(
                dataset,
                self.whole,
                (height, width),
                name == "train" and self._probe.flip > 0,
                self._probe.cache_dir,
                self._device,
                None if name == "train" else self.data.groups_in(dataset),
            )
        return splits


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
        """Return the material of a cell."""
        probe: Probe = build_own(config.probe)
        parts = (config.data, config.model.backbone)
        key = json.dumps(
            [OmegaConf.to_container(part, resolve=True) for part in parts]
            + [list(probe.size), probe.flip > 0, probe.cache_dir]
        )
        if key not in self._known:
            data: SegmentationDataModule = build_own(config.data)
            torch.manual_seed(0)  # of a backbone without weights
            backbone: TimmBackbone = build_own(config.model.backbone).eval().to(self.device)
            self._known[key] = Material(data, backbone, probe, self.device)
        return self._known[key]
