"""Composition of the config of one cell, in the process that needs it."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from gald.config import CONF_DIR
from gald.run.trunk import trunk_key
from gald.sweep.cells import Cell, split_overrides

# Groups and keys that have no influence on the devices that a cell needs.
WITHOUT_DEVICES = (
    "seed",
    "augment",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "inference",
    "metrics",
    "task",
)


@dataclass(frozen=True)
class Source:
    """Folders in which Hydra finds the config of a sweep's cells.

    Args:
        folder: folder of the primary config.
        name: name of the primary config, without .yaml.
        searchpath: further folders, as `hydra.searchpath` takes them.
    """

    folder: str = str(CONF_DIR)
    name: str = "train"
    searchpath: tuple[str, ...] = ()

    @classmethod
    def of(cls, hydra: DictConfig) -> "Source":
        """Return the folders of a process, from Hydra's section of its config."""
        sources = {source.provider: source for source in hydra.runtime.config_sources}
        main, extra = sources["main"], sources.get("command-line")
        folders = [str(folder) for folder in hydra.searchpath]
        if extra is not None:
            folders.append(f"file://{Path(extra.path).absolute()}")
        return cls(str(main.path), str(hydra.job.config_name), tuple(folders))


def compose_cell(overrides: Sequence[str], source: Source, folder: Path) -> DictConfig:
    """Compose and resolve the config of a cell, with its folder as `output_dir`."""
    words = list(overrides)
    if source.searchpath:
        words.append(f"hydra.searchpath=[{','.join(source.searchpath)}]")
    with _without_hydra(), initialize_config_dir(source.folder, version_base="1.3"):
        config = hydra_compose(source.name, words)
    OmegaConf.set_struct(config, False)
    config.output_dir = str(folder.absolute())
    if "ckpt_path" in config:
        config.ckpt_path = None
    fill(config)  # first, because parts refer to the width that a host decides
    OmegaConf.resolve(config)
    return config


def fill(config: DictConfig) -> None:
    """Write what a host decides into the config of a cell; see `gald.model.host.fill`."""
    if trunk_key(config.model) == "host":
        from gald.model.host.fill import fill_host  # imports torch, which takes seconds

        fill_host(config.model)


@contextmanager
def _without_hydra() -> Generator[None]:
    """Put Hydra's state of this process aside, so that another config can be composed."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        if running is not None:
            GlobalHydra.instance().initialize(running)


@dataclass(frozen=True)
class Need:
    """Devices that a cell needs: the options `trainer.accelerator` and `trainer.devices`."""

    accelerator: str
    devices: int | str | tuple[int, ...]

    @classmethod
    def of(cls, trainer: DictConfig) -> "Need":
        """Return the devices that the section `trainer` of a config asks for."""
        devices = trainer.devices
        many = tuple(devices) if isinstance(devices, ListConfig) else devices
        return cls(str(trainer.accelerator), many)


class Needs:
    """Devices that cells need; only cells that may differ in it are composed.

    Args:
        source: where Hydra finds the config.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known: dict[tuple[str, ...], Need] = {}

    def __getitem__(self, cell: Cell) -> Need:
        """Return the devices that a cell needs."""
        key = tuple(
            f"{name}={value}"
            for name, value in split_overrides(cell.overrides).items()
            if name.replace("/", ".").partition(".")[0] not in WITHOUT_DEVICES
        )
        if key not in self.known:
            trainer = compose_cell(cell.overrides, self.source, Path("cell")).trainer
            self.known[key] = Need.of(trainer)
        return self.known[key]
