"""MLflow, in a file of the run folder unless a server is named."""

import os
import warnings
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from gald.sweep.run_labels import run_labels


def mlflow_logger(
    output_dir: str, tracking_uri: str | None = None, experiment: str = "gald"
) -> Logger:
    """Logs curves and the config to MLflow; a resumed run goes on as the same MLflow run.

    `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db` shows what a run folder holds.

    Args:
        output_dir: run folder; it remembers the run's id in `mlflow_run_id`.
        tracking_uri: a server, or a store that runs share; null: `mlflow.db` in the run folder.
        experiment: runs of one experiment share it.

    Raises:
        ValueError: mlflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise ValueError("logger=mlflow needs the package mlflow; pip install 'gald[mlflow]'")
    # It leaves out the comma in names of learning rates, and would say so at every step.
    warnings.filterwarnings("ignore", message="MLFlow only allows", category=RuntimeWarning)
    # It would report its use over the network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = Path(output_dir).absolute()
    labels = run_labels(folder)
    memory = folder / "mlflow_run_id"
    logger = _OneRun(
        experiment,
        run_name=labels.name,
        tracking_uri=tracking_uri or f"sqlite:///{folder / 'mlflow.db'}",
        tags={"job_type": labels.job_type, "sweep": labels.group or "", **labels.factors},
        artifact_location=None if tracking_uri else (folder / "mlflow").as_uri(),
        run_id=memory.read_text().strip() if memory.is_file() else None,
    )

    @rank_zero_only
    def remember() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        memory.write_text(f"{logger.run_id}\n")

    if not memory.is_file():
        remember()
    return logger


class _OneRun(MLFlowLogger):
    """Leaves the config of a resumed run as it began: MLflow refuses any change of it."""

    def __init__(self, *arguments: Any, run_id: str | None, **options: Any) -> None:
        super().__init__(*arguments, run_id=run_id, **options)
        self.resumed = run_id is not None

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        if not self.resumed:
            super().log_hyperparams(params)
