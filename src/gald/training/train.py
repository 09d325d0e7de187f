"""Training of one network: build, fit, evaluate, write the run folder."""

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.callbacks import LambdaCallback, ProgressBar
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from gald.callbacks.heartbeat import Heartbeat
from gald.callbacks.last_checkpoint import LastCheckpoint
from gald.cli import silence_warnings
from gald.config import compose
from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.evaluate import build_metrics
from gald.evaluation.final import final_evaluation
from gald.evaluation.score_table import score_table
from gald.inference.ld_map import ld_map
from gald.inference.precision import refuse_two_precisions, slow_precision
from gald.logger.tolerant import warn
from gald.metrics.base import CountMetric
from gald.model.freezing import check_frozen_weights
from gald.model.host.fill import fill_host
from gald.model.truth import shown_to
from gald.options.check import check_config
from gald.options.roots import Train
from gald.profiling.flops import part_costs
from gald.report.training import report_training
from gald.run.building import build_own
from gald.run.lock import own_folder
from gald.run.processes import end_together
from gald.run.provenance import commit, versions
from gald.run.results import SPLITS, Results, write_results
from gald.run.step_loss import NotFiniteError
from gald.task import SegmentationTask
from gald.training.build import build_task, build_training
from gald.training.effects import refuse_without_effect
from gald.training.start import (
    load_initial_weights,
    refuse_to_overwrite,
    resume_point,
    say_how_to_go_on,
    start_again,
)
from gald.viz.panel import save_panel

# Callbacks of the final evaluation: progress on the screen and for the launcher, and signals.
DURING_EVALUATION = (ProgressBar, Heartbeat, LastCheckpoint)


def train_words(words: Sequence[str]) -> Results:
    """Train with the words of a command line, in this process; see `gald.train`."""
    cfg = compose("train", words)
    devices = cfg.trainer.devices
    count = len(devices) if isinstance(devices, ListConfig) else devices
    if str(count) != "1":
        raise ValueError(
            f"trainer.devices={devices}: gald.train trains in this process, on one device; for "
            f"several run {shlex.join(['gald', 'train', *words])}"
        )
    cfg.output_dir = str(Path(cfg.output_dir).absolute())
    own, sys.argv = sys.argv, ["gald", *words]  # the command that results.json and messages name
    try:
        return {**train(cfg), "run_folder": cfg.output_dir}
    finally:
        sys.argv = own


def train(cfg: DictConfig) -> Results:
    """Build and train a network, evaluate its best checkpoint, and write the run folder.

    The folder contains `config.yaml` (resolved), `checkpoints/best.ckpt` and `last.ckpt`,
    `metrics.csv`, `results.json`, `images_<split>.npz` (the counts of every image),
    `picture.png`, and `report/` unless the config says `report: false`.

    With `trainer.fast_dev_run` a few batches are trained and validated, and nothing is saved.

    Raises:
        ValueError: the folder already contains a run that would be overwritten or is in use, or
            two options do not fit each other.
    """
    folder = Path(cfg.output_dir)
    with ExitStack() as during:
        began = during.enter_context(own_folder(folder))
        during.enter_context(say_how_to_go_on(folder))
        fill_host(cfg.model)
        check_config(cfg, Train)
        refuse_without_effect(cfg)
        return _train(cfg, folder, began, during)


def _train(cfg: DictConfig, folder: Path, began: bool, during: ExitStack) -> Results:
    start = time.monotonic()
    silence_warnings()
    if cfg.ckpt_path == "auto":
        cfg.ckpt_path = "last" if (folder / "checkpoints" / "last.ckpt").is_file() else None
    ckpt_path, longer = resume_point(cfg, folder, began)
    if ckpt_path is None:
        refuse_to_overwrite(folder, began)
        longer = start_again(folder) if began else None
    torch.set_float32_matmul_precision("high")
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    data: SegmentationDataModule = build_own(cfg.data)
    splits = _splits(cfg, data)
    data.setup("fit")  # first, so that a missing folder is reported before the network is built
    data.check(test="test" in splits)
    task = build_task(cfg, data)
    say = rank_zero_only(Console(markup=False, emoji=False).print)
    started = None
    if ckpt_path is None:
        started = load_initial_weights(cfg, task)
        if cfg.init_from is None and (warning := check_frozen_weights(task.model.trunk)):
            say(warning, soft_wrap=True)
    costs = part_costs(task.model, _image_size(data))

    metrics = build_metrics(cfg.metrics, data.num_classes)
    task.count_last_validation(metrics)
    scores = [s for m in task.evaluator.metrics for s in m.score_keys(task.class_names)]
    trainer = build_training(cfg, folder, data, int(costs["cost/total/params"]), scores)
    refuse_two_precisions(task.inference.precision, str(trainer.precision))
    during.enter_context(end_together(trainer))
    say(f"run folder: {folder}", soft_wrap=True)
    say(data.batch_sentence(trainer.world_size))
    device = trainer.strategy.root_device
    slow = slow_precision(task.inference.precision, str(trainer.precision), device)
    for line in filter(None, (longer, started, slow)):
        say(line, soft_wrap=True)
    for logger in trainer.loggers:
        logger.log_hyperparams(task.provenance["config"])

    began: list[bool] = []  # filled once a state to resume from is known to fit
    hook = LambdaCallback(on_train_start=lambda *_: began.append(True))
    trainer.callbacks.append(hook)  # ty: ignore[missing-attribute]
    try:
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    except NotFiniteError as error:
        last = folder / "checkpoints" / "last.ckpt"
        kept = f"{last} is from before" if last.exists() else "no checkpoint was saved before"
        raise ValueError(f"{error}; {kept}") from error
    except (TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
        ours = isinstance(error, ValueError) and _raised_by_gald(error)
        if ckpt_path is None or began or ours:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{ckpt_path} does not hold the state of this training ({type(error).__name__}: "
            f"{reason}); start a new run from its weights with init_from={ckpt_path}"
        ) from error
    if trainer.fast_dev_run:  # ty: ignore[missing-attribute]
        say("fast_dev_run: training and validation ran; nothing is saved or evaluated further")
        return {"val/miou": float(trainer.callback_metrics["val/miou"])}

    run = {
        **costs,
        "params": costs["cost/total/params"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seed": cfg.seed,
        "tags": list(cfg.get("tags", ())),
        "device": str(trainer.strategy.root_device),
        "precision": str(trainer.precision),
        "command": shlex.join(["gald", "train", *sys.argv[1:]]),
        "commit": commit(),
        **versions(),
    }
    loggers, trainer.loggers = trainer.loggers, []  # keeps the final evaluation out of the curves
    checkpoint = _best_checkpoint(trainer, folder)
    # A callback that replaces the weights during a validation would change what is evaluated.
    kept = [c for c in trainer.callbacks if isinstance(c, DURING_EVALUATION)]  # ty: ignore[missing-attribute]
    trainer.callbacks = kept  # ty: ignore[missing-attribute]
    config = task.provenance["config"]
    results = final_evaluation(
        trainer,
        checkpoint,
        task.model,
        task.inference,
        data,
        splits,
        metrics,
        folder,
        config,
        run,
        task.last_validation,
    )
    results["seconds"] = round(task.seconds_before + time.monotonic() - start, 1)
    if trainer.is_global_zero:
        write_results(folder / "results.json", results)
        _save_picture(folder / "picture.png", task, data)
        _summarise(loggers, results)
        say(_report(cfg, folder, task, data, metrics), soft_wrap=True)
    say(score_table(results, data.class_names, metrics))
    say(f"figure: {folder / 'picture.png'}", soft_wrap=True)
    return results


def _report(
    cfg: DictConfig,
    folder: Path,
    task: SegmentationTask,
    data: SegmentationDataModule,
    metrics: list[CountMetric],
) -> str:
    """Write the report unless it is left out; return a line about it."""
    if cfg.get("report", True):
        return report_training(folder, task, data, metrics)
    again = shlex.join(["gald", "report", str(folder)])
    return f"no report, because of report=false; write it with: {again}"


def _raised_by_gald(error: BaseException) -> bool:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__")).startswith("gald.")


def _splits(cfg: DictConfig, data: SegmentationDataModule) -> tuple[str, ...]:
    """Return the splits of the final evaluation."""
    wants_test = cfg.test and cfg.trainer.get("limit_test_batches") != 0
    return SPLITS if wants_test and data.has_test else ("val",)


def _best_checkpoint(trainer: pl.Trainer, folder: Path) -> str | None:
    """Return the best checkpoint, else the last; None if none was saved."""
    # One that keeps every epoch monitors no score, and calls the newest the best.
    saved = [c for c in trainer.checkpoint_callbacks if getattr(c, "best_model_path", None)]
    for callback in sorted(saved, key=lambda c: getattr(c, "monitor", None) is None):
        return str(getattr(callback, "best_model_path", ""))
    last = folder / "checkpoints" / "last.ckpt"
    return str(last) if last.is_file() else None


def _image_size(data: SegmentationDataModule) -> Sequence[int]:
    """Return height and width of the crops, or of the first image if training does not crop."""
    crop_size = getattr(data.train_transform, "crop_size", None)
    assert data.train_dataset is not None, "the data is set up"
    return crop_size or data.train_dataset[0]["image"].shape[-2:]


def _save_picture(path: Path, task: SegmentationTask, data: SegmentationDataModule) -> None:
    """Draw the first evaluated image with ground truth, prediction and LD map."""
    dataset = data.test_dataset or data.val_dataset
    assert dataset is not None, "the evaluation has set up the data"
    item = dataset[0]
    device = next(task.parameters()).device
    image, mask = (item[key].to(device)[None] for key in ("image", "mask"))
    image = shown_to(task.model, image, mask)[0]
    task.eval()
    with torch.no_grad():
        labels = task(image[None]).argmax(1)[0]
    ld_values = ld_map(task.model, image, task.inference)
    save_panel(path, item["image"], item["mask"], labels, ld_values, data.class_names, data.palette)


def _summarise(loggers: list[Logger], results: Results) -> None:
    """Copy the final numbers to wandb's summary, which its tables show."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            kept = {
                k: v
                for k, v in results.items()
                if not k.startswith("version/") and not k.endswith("/receipt")
            }
            try:
                logger.experiment.summary.update({f"best/{k}": v for k, v in kept.items()})
                logger.experiment.finish()
            except Exception as error:  # the results are in results.json
                warn(type(logger).__name__, error)
