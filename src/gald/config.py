"""Location of the Hydra configuration, and its composition without a command line."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "conf"  # exists in an installed wheel; in a clone conf/ is at the top

CONF_DIR = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1] / "conf"


def compose(name: str, overrides: Sequence[str] = (), hydra: bool = False) -> DictConfig:
    """Compose the configuration for the given overrides, as a command line does.

    Args:
        name: name of the root config: `train`, `eval` or `profile`.
        overrides: as on the command line, for example `model/ga=psp`.
        hydra: whether to return Hydra's own section too.
    """
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra_compose(name, list(overrides), return_hydra_config=hydra)
