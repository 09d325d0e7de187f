"""MLflow logger; it writes to a file in the run folder unless a server is given."""

import hashlib
import os
import posixpath
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from gald.install.extras import require
from gald.run.atomic import write_bytes
from gald.sweep.run_labels import run_labels

_LONGEST = 250  # characters of a name that MLflow accepts


def mlflow_logger(
    output_dir: str, tracking_uri: str | None = None, experiment: str = "gald"
) -> Logger:
    """Create a logger of curves and config to MLflow; a resumed run continues its MLflow run.

    `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db` shows the run in a run folder.

    Args:
        output_dir: run folder; its file `mlflow_run_id` stores the id of the MLflow run.
        tracking_uri: a server or a shared store; null means `mlflow.db` in the run folder.
        experiment: name that the runs of one experiment share.

    Raises:
        ValueError: mlflow is not installed.
    """
    require("logger=mlflow", "mlflow")
    # The logger drops the comma in names of learning rates, and would warn about it at every step.
    warnings.filterwarnings("ignore", message="MLFlow only allows", category=RuntimeWarning)
    # Otherwise MLflow sends usage statistics over the network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = Path(output_dir).absolute()
    labels = run_labels(folder)
    id_file = folder / "mlflow_run_id"
    logger = _OneRun(
        experiment,
        run_name=labels.name,
        tracking_uri=tracking_uri or f"sqlite:///{folder / 'mlflow.db'}",
        tags={"job_type": labels.job_type, "sweep": labels.group or "", **labels.factors},
        artifact_location=None if tracking_uri else (folder / "mlflow").as_uri(),
        run_id=id_file.read_text().strip() if id_file.is_file() else None,
    )

    @rank_zero_only
    def store_run_id() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(id_file, f"{logger.run_id}\n".encode())

    if not id_file.is_file():
        store_run_id()
    return logger


def metric_key(key: str) -> str:
    """Return the name that MLflow accepts for a score; different scores have different names.

    Class names may have any letters. Lightning would leave out all but those of ASCII, so that two
    classes could become one.
    """
    if not key.startswith(("val/", "test/")):
        return key
    name = re.sub(r"[^\w/. -]", _number, key, flags=re.ASCII)
    if posixpath.normpath(name) != name:  # MLflow makes folders of names
        split, score, *rest = name.split("/", 2)
        name = "/".join([split, score, *(re.sub(r"[./]", _number, part) for part in rest)])
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 13]}_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return name


def _number(letter: re.Match[str]) -> str:
    return f"_{ord(letter[0]):x}_"


class _OneRun(MLFlowLogger):
    """MLflow logger that keeps the config of a resumed run, because MLflow refuses any change."""

    def __init__(self, *arguments: Any, run_id: str | None, **options: Any) -> None:
        super().__init__(*arguments, run_id=run_id, **options)
        self.resumed = run_id is not None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({metric_key(key): value for key, value in metrics.items()}, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        if not self.resumed:
            super().log_hyperparams(params)
