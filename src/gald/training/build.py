"""Objects of a training, built from its config: network, trainer, callbacks and loggers."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.loggers import Logger
from rich.console import Console

from gald.callbacks.val_loss import ValidationLoss
from gald.data.datamodule import SegmentationDataModule
from gald.logger.tolerant import tolerant, warn
from gald.run.atomic import atomic_file
from gald.run.building import build_own
from gald.run.describe import describe_run
from gald.run.plain import plain_data
from gald.task import SegmentationTask
from gald.trainer import check_accumulation


def build_task(cfg: DictConfig, data: SegmentationDataModule) -> SegmentationTask:
    """Build the network with loss, optimizer, scheduler and inference for the data's classes."""
    config = OmegaConf.to_container(_kept(cfg), resolve=True)
    provenance = {
        # Refused now rather than when the checkpoint is read, after the training.
        "config": plain_data(config, "the composed configuration"),
        "class_names": list(data.class_names),
        "palette": [list(colour) for colour in data.palette],
    }
    # Partial first: otherwise Hydra would also build the config inside `provenance`.
    return build_own(cfg.task, _partial_=True)(
        model=build_own(cfg.model, num_classes=data.num_classes),
        loss=build_own(cfg.loss),
        inference=build_own(cfg.inference),
        optimizer=build_own(cfg.optimizer),
        scheduler=build_own(cfg.scheduler),
        class_names=list(data.class_names),
        provenance=provenance,
    )


def build_training(
    cfg: DictConfig,
    folder: Path,
    data: SegmentationDataModule,
    params: int,
    scores: Sequence[str],
) -> pl.Trainer:
    """Build the trainer with its callbacks and loggers, and plan the batches of its devices.

    Args:
        cfg: the whole config of `gald train`.
        folder: the run folder.
        data: data of the training, set up for it.
        params: parameters of the network, for the line that describes the run.
        scores: what each validation computes.

    Raises:
        ValueError: options of the trainer do not fit each other, the data or this machine.
    """

    def on_train_start(trainer: pl.Trainer, task: Any) -> None:
        """Describe the run, and replace `config.yaml` once a resumption is known to work."""
        if not trainer.is_global_zero:
            return
        datasets = (data.train_dataset, data.val_dataset, data.test_dataset)
        images = [len(dataset) for dataset in datasets if dataset is not None]
        for line in describe_run(cfg, task.model.trunk, images, params, trainer):
            Console(markup=False, emoji=False).print(line, soft_wrap=True, highlight=False)
        if not trainer.fast_dev_run:  # ty: ignore[missing-attribute]
            with atomic_file(folder / "config.yaml") as partial:
                OmegaConf.save(_kept(cfg), partial, resolve=True)

    # Lightning logs nothing in a fast_dev_run
    logs = any((cfg.get("logger") or {}).values()) and not cfg.trainer.get("fast_dev_run")
    unused = () if logs else ("learning_rate",)  # it needs a logger
    callbacks = _build_all(cfg.get("callbacks"), without=unused)
    trainer = build_own(
        cfg.trainer,
        callbacks=[*callbacks, LambdaCallback(on_train_start=on_train_start)],
        logger=False,
    )
    trainer.accumulate_grad_batches = data.plan_batches(trainer.world_size)
    check_accumulation(cfg.trainer, trainer.accumulate_grad_batches)
    monitored = [c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None)]
    if trainer.limit_val_batches == 0 and monitored:
        raise ValueError(
            "trainer.limit_val_batches=0 leaves no score to choose the best epoch by; add "
            "'~callbacks.best' to keep the last epoch"
        )
    _check_monitored(trainer, scores)
    # last, so that a refused option leaves no files of loggers behind
    built = _build_loggers(cfg.get("logger")) if logs else []
    trainer.loggers = [tolerant(logger) for logger in built]
    return trainer


def _check_monitored(trainer: pl.Trainer, scores: Sequence[str]) -> None:
    """Refuse a callback that waits for a score of no validation; Lightning says so after an epoch.

    A callback of somebody else may log any score, so beside one nothing is refused.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # ty: ignore[missing-attribute]
    if not all(type(c).__module__.startswith(("gald.", "pytorch_lightning.")) for c in callbacks):
        return
    known = {f"val/{score}" for score in scores}
    if any(isinstance(callback, ValidationLoss) for callback in callbacks):
        known.add("val/loss")
    for callback in callbacks:
        monitor = str(getattr(callback, "monitor", None))
        if not monitor.startswith("val/") or monitor in known:
            continue
        near = get_close_matches(monitor, sorted(known), 1, 0) or ["val/miou"]
        remedy = "add val_loss to callbacks" if monitor == "val/loss" else f"set {near[0]}"
        raise ValueError(
            f"{type(callback).__name__} has monitor={monitor}, a score that the validations of "
            f"this training do not have; {remedy}"
        )


def _build_all(options: DictConfig | ListConfig | None, without: Sequence[str] = ()) -> list[Any]:
    """Build callbacks; null or an empty list gives none."""
    named = options.items() if isinstance(options, DictConfig) else ()
    return [build_own(option) for name, option in named if name not in without and option]


def _build_loggers(options: DictConfig | ListConfig | None) -> list[Logger]:
    """Build the loggers, except one that fails on the disk or in its own service."""
    loggers: list[Logger] = []
    for name, option in options.items() if isinstance(options, DictConfig) else ():
        try:
            loggers += [build_own(option)] if option else []
        except InstantiationException as error:
            cause = error.__cause__
            service = type(cause).__module__.split(".")[0] in ("wandb", "mlflow", "sqlalchemy")
            if cause is None or not (service or isinstance(cause, OSError | RuntimeError)):
                raise
            warn(f"logger={name}", cause)
    return loggers


def _kept(cfg: DictConfig) -> DictConfig:
    """Return the config for the files of a run, which are those of a run that was never stopped."""
    kept = cfg.copy()
    kept.ckpt_path = None
    return kept
