"""Where the Hydra configuration lies: inside an installed wheel, else atop the repository."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "conf"

CONF_DIR = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1] / "conf"
