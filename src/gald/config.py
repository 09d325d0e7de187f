"""The Hydra configuration: where it lies, and how to compose it without a command line."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "conf"  # an installed wheel has it inside, a clone at the top

CONF_DIR = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1] / "conf"


def compose(name: str, overrides: Sequence[str] = (), hydra: bool = False) -> DictConfig:
    """Compose the configuration that a command line of these overrides would.

    Args:
        name: of the root: `train`, `eval` or `profile`.
        overrides: as on the command line, `model/ga=psp`.
        hydra: whether to return Hydra's own part too.
    """
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra_compose(name, list(overrides), return_hydra_config=hydra)
