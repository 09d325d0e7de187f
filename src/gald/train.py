"""`gald train`: train a network, evaluate it, write its run folder.

gald train experiment=demo
gald train data=camvid model/ga=psp model/ld=none trainer.max_epochs=3
gald train -m model/ga=none,psp,cgnl model/ld=none,mask
"""

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback, ProgressBar
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from gald.callbacks.heartbeat import Heartbeat
from gald.callbacks.last_checkpoint import LastCheckpoint
from gald.cli import report_errors, run, silence_warnings
from gald.config import CONF_DIR
from gald.data.datamodule import SegmentationDataModule
from gald.errors import is_of_the_system, to_sentence
from gald.evaluation.evaluate import build_metrics
from gald.evaluation.final import final_evaluation
from gald.evaluation.score_table import score_table
from gald.inference.ld_map import ld_map
from gald.logger.tolerant import tolerant, warn
from gald.model.freezing import check_frozen_weights
from gald.options.check import check_config
from gald.options.roots import Train
from gald.profiling.flops import part_costs
from gald.report.training import report_training
from gald.run.atomic import atomic_file
from gald.run.building import build_own
from gald.run.checkpoint import check_training_state, read_checkpoint, whole_neighbour
from gald.run.describe import describe_run
from gald.run.fresh import clear, may_start_afresh
from gald.run.initial_weights import start_from
from gald.run.lock import own_folder
from gald.run.plain import plain_data
from gald.run.processes import end_together
from gald.run.provenance import commit, versions
from gald.run.results import SPLITS, Results, write_results
from gald.run.resume import check_resume, resume_command
from gald.run.step_loss import NotFiniteError
from gald.task import SegmentationTask
from gald.trainer import check_accumulation
from gald.viz.panel import save_panel

# Callbacks of the final evaluation: progress on the screen and for the launcher, and signals.
DURING_EVALUATION = (ProgressBar, Heartbeat, LastCheckpoint)


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
@report_errors
def main(cfg: DictConfig) -> float | str:
    """Train with the options of the command line; return val/miou for sweepers to maximise."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        from gald.sweep.launch.foreign_launcher import run_single  # not started by our launcher

        return run_single(cfg)
    # In the further processes that Lightning starts, only Hydra knows the run folder.
    cfg.output_dir = str(Path(job.runtime.output_dir).absolute())
    return train(cfg)["val/miou"]


def train(cfg: DictConfig) -> Results:
    """Build and train a network, evaluate its best checkpoint, and write the run folder.

    The folder contains `config.yaml` (resolved), `checkpoints/best.ckpt` and `last.ckpt`,
    `metrics.csv`, `results.json`, `images_<split>.npz` (the counts of every image),
    `picture.png` and `report/`.

    With `trainer.fast_dev_run` a few batches are trained and validated, and nothing is saved.

    Raises:
        ValueError: the folder already contains a run that would be overwritten or is in use, or
            two options do not fit each other.
    """
    folder = Path(cfg.output_dir)
    with ExitStack() as during:
        began = during.enter_context(own_folder(folder))
        during.enter_context(_say_how_to_go_on(folder))
        check_config(cfg, Train)
        return _train(cfg, folder, began, during)


def _train(cfg: DictConfig, folder: Path, began: bool, during: ExitStack) -> Results:
    start = time.monotonic()
    silence_warnings()
    if cfg.ckpt_path == "auto":
        cfg.ckpt_path = "last" if (folder / "checkpoints" / "last.ckpt").is_file() else None
    ckpt_path, longer = _resume_point(cfg, folder, began)
    if ckpt_path is None:
        _refuse_to_overwrite(folder, began)
        longer = _clear(folder) if began else None
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
        started = _start(cfg, task)
        if cfg.init_from is None and (warning := check_frozen_weights(task.model.backbone)):
            say(warning, soft_wrap=True)
    costs = part_costs(task.model, _image_size(data))

    trainer = _build_trainer(cfg, folder, data, int(costs["cost/total/params"]))
    during.enter_context(end_together(trainer))
    say(f"run folder: {folder}", soft_wrap=True)
    say(data.batch_sentence(trainer.world_size))
    for line in filter(None, (longer, started)):
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
        "device": str(trainer.strategy.root_device),
        "precision": str(trainer.precision),
        "command": " ".join(["gald train", *sys.argv[1:]]),
        "commit": commit(),
        **versions(),
    }
    loggers, trainer.loggers = trainer.loggers, []  # keeps the final evaluation out of the curves
    checkpoint = _best_checkpoint(trainer, folder)
    # A callback that replaces the weights during a validation would change what is evaluated.
    kept = [c for c in trainer.callbacks if isinstance(c, DURING_EVALUATION)]  # ty: ignore[missing-attribute]
    trainer.callbacks = kept  # ty: ignore[missing-attribute]
    metrics = build_metrics(cfg.metrics, data.num_classes)
    config = task.provenance["config"]
    results = final_evaluation(
        trainer, checkpoint, task.model, task.inference, data, splits, metrics, folder, config, run
    )
    results["seconds"] = round(time.monotonic() - start, 1)
    if trainer.is_global_zero:
        write_results(folder / "results.json", results)
        _save_picture(folder / "picture.png", task, data)
        _summarise(loggers, results)
        say(report_training(folder, task, data, metrics), soft_wrap=True)
    say(score_table(results, data.class_names, metrics))
    say(f"figure: {folder / 'picture.png'}", soft_wrap=True)
    return results


def _raised_by_gald(error: BaseException) -> bool:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__")).startswith("gald.")


def _splits(cfg: DictConfig, data: SegmentationDataModule) -> tuple[str, ...]:
    """Return the splits of the final evaluation."""
    wants_test = cfg.test and cfg.trainer.get("limit_test_batches") != 0
    return SPLITS if wants_test and data.has_test else ("val",)


def _build_trainer(
    cfg: DictConfig, folder: Path, data: SegmentationDataModule, params: int
) -> pl.Trainer:
    def on_train_start(trainer: pl.Trainer, task: Any) -> None:
        """Describe the run, and replace `config.yaml` once a resumption is known to work."""
        if not trainer.is_global_zero:
            return
        datasets = (data.train_dataset, data.val_dataset, data.test_dataset)
        images = [len(dataset) for dataset in datasets if dataset is not None]
        for line in describe_run(cfg, task.model.backbone, images, params, trainer):
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
    # last, so that a refused option leaves no files of loggers behind
    built = _build_loggers(cfg.get("logger")) if logs else []
    trainer.loggers = [tolerant(logger) for logger in built]
    return trainer


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


def _kept(cfg: DictConfig) -> DictConfig:
    """Return the config for the files of a run, which are those of a run that was never stopped."""
    kept = cfg.copy()
    kept.ckpt_path = None
    return kept


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


def _best_checkpoint(trainer: pl.Trainer, folder: Path) -> str | None:
    """Return the best checkpoint, else the last; None if none was saved."""
    for callback in trainer.checkpoint_callbacks:
        if best := getattr(callback, "best_model_path", None):
            return best
    last = folder / "checkpoints" / "last.ckpt"
    return str(last) if last.is_file() else None


def _image_size(data: SegmentationDataModule) -> Sequence[int]:
    """Return height and width of the crops, or of the first image if training does not crop."""
    crop_size = getattr(data.train_transform, "crop_size", None)
    assert data.train_dataset is not None, "the data is set up"
    return crop_size or data.train_dataset[0]["image"].shape[-2:]


def _resume_point(cfg: DictConfig, folder: Path, began: bool) -> tuple[str | None, str | None]:
    """Return the checkpoint to resume from, if any, and a sentence if the training gets longer."""
    if cfg.ckpt_path is None:
        return None, None
    last = cfg.ckpt_path == "last"
    path = folder / "checkpoints" / "last.ckpt" if last else Path(cfg.ckpt_path)
    if last and not path.is_file() and began and may_start_afresh(folder, began):
        return None, None
    if not path.is_file():
        if last and (good := whole_neighbour(path)):
            raise FileNotFoundError(
                f"{folder} has no last.ckpt, but {good} is whole; resume with: "
                f"{resume_command(folder, good)}"
            )
        raise FileNotFoundError(
            f"no checkpoint at {path}; give output_dir=FOLDER of the run to resume, "
            "or ckpt_path=FILE"
        )
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        if good := whole_neighbour(path):
            command = resume_command(folder, good)
            raise ValueError(f"{error}, as in: {command}") from error
        raise
    if not checkpoint.resumable:
        raise ValueError(
            f"{path} holds a network but no training state to resume; start a new run from its "
            f"weights with init_from={path}"
        )
    check_training_state(checkpoint)
    now = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return str(path), check_resume(checkpoint.config, now, path)


def _start(cfg: DictConfig, task: SegmentationTask) -> str | None:
    """Load the initial weights, if they are from another run; return a sentence about them."""
    if not isinstance(cfg.init_from_strict, bool):
        raise ValueError(
            f"init_from_strict is {cfg.init_from_strict!r}; set init_from_strict to true or false"
        )
    if cfg.init_from is None:
        return None
    network, names = task.provenance["config"]["model"], task.provenance["class_names"]
    checkpoint = read_checkpoint(cfg.init_from)
    return start_from(task.model, checkpoint, network, names, cfg.init_from_strict)


@rank_zero_only  # the other processes start after the first has created files in the folder
def _refuse_to_overwrite(folder: Path, began: bool) -> None:
    if may_start_afresh(folder, began):
        return
    last = folder / "checkpoints" / "last.ckpt"
    good = "last" if last.is_file() else whole_neighbour(last)
    resume = f"add ckpt_path={good} to resume it, or " if good else ""
    raise ValueError(f"{folder} already holds a run; {resume}choose another output_dir")


def _clear(folder: Path) -> str:
    """Remove what a run left that ended before its first checkpoint; return a sentence about it."""
    if not getattr(rank_zero_only, "rank", 0):  # the other processes wait for the first
        clear(folder)
    return f"the run in {folder} ended before its first checkpoint; it starts from the beginning"


@contextmanager
def _say_how_to_go_on(folder: Path) -> Generator[None]:
    """Add to an error of the disk how the run goes on once its cause is removed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not is_of_the_system(error):
            raise
        last = folder / "checkpoints" / "last.ckpt"
        kept = f"then resume with: {resume_command(folder)}"
        then = kept if last.is_file() else "then repeat the command"
        raise OSError(f"{to_sentence(error)}, {then}") from error


def _save_picture(path: Path, task: SegmentationTask, data: SegmentationDataModule) -> None:
    """Draw the first evaluated image with ground truth, prediction and LD map."""
    dataset = data.test_dataset or data.val_dataset
    assert dataset is not None, "the evaluation has set up the data"
    item = dataset[0]
    image = item["image"].to(next(task.parameters()).device)
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


if __name__ == "__main__":
    run("gald.train:main", sys.argv[1:])
