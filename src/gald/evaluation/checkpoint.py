"""Evaluation of a checkpoint on its own data, or on other data with the same classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from gald.cli import silence_warnings
from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.evaluate import EVALUATED, build_metrics, describe, evaluate
from gald.evaluation.score_table import score_table
from gald.inference.precision import refuse_two_precisions, slow_precision
from gald.options.check import check_config
from gald.options.roots import FROM_CHECKPOINT, Eval
from gald.run import building
from gald.run.checkpoint import Checkpoint, load_weights, read_checkpoint
from gald.run.processes import end_together
from gald.run.provenance import commit, versions
from gald.run.results import Results, write_results
from gald.run.slots import check_trust


def evaluate_checkpoint(cfg: DictConfig) -> Results:
    """Build the network of a checkpoint, evaluate it on a split, and write `results.json`.

    Args:
        cfg: configuration of conf/eval.yaml; a part that is null is taken from the checkpoint,
            as plain data (see `gald.run.building`). A part without `_target_` has keys that
            replace those of the checkpoint.

    Raises:
        ValueError: the split is unknown, the folder already has results, data and network have
            different classes, or the checkpoint would call foreign code.
    """
    silence_warnings()
    changes = _taken_out(cfg)
    check_config(cfg, Eval)
    path = Path(cfg.output_dir) / "results.json"
    if path.exists():
        raise ValueError(f"{path} already holds results; choose another output_dir")
    checkpoint = read_checkpoint(cfg.ckpt_path)
    trust = check_trust(cfg.get("trust"))
    parts = _parts(checkpoint, cfg, trust, changes)

    data: SegmentationDataModule = _build("data", parts, checkpoint, cfg, trust)
    class_names = checkpoint.class_names
    if list(data.class_names) != class_names:
        raise ValueError(
            f"the network has {len(class_names)} classes ({', '.join(class_names)}), the data has "
            f"{data.num_classes} ({', '.join(data.class_names)}); choose data with the network's "
            "classes"
        )
    if cfg.split == "test" and not data.has_test:
        raise ValueError(
            f"{type(data).__name__} has no public test labels; choose split=val, on which papers "
            "compare networks"
        )
    file = checkpoint.config_file
    model = building.build("model", parts["model"], file, trust, num_classes=data.num_classes)
    load_weights(model, checkpoint)
    trainer: pl.Trainer = building.build_own(cfg.trainer, logger=False)
    if cfg.get("metrics") is None:
        metrics = building.build_metrics(parts["metrics"], data.num_classes, file, trust)
    else:
        metrics = build_metrics(parts["metrics"], data.num_classes)
    about = describe(parts, checkpoint.path)
    inference = _build("inference", parts, checkpoint, cfg, trust)
    refuse_two_precisions(inference.precision, str(trainer.precision))
    say = rank_zero_only(Console(markup=False, emoji=False).print)
    device = trainer.strategy.root_device
    if warning := slow_precision(inference.precision, str(trainer.precision), device):
        say(warning, soft_wrap=True)
    with end_together(trainer):
        results = evaluate(trainer, model, inference, data, cfg.split, metrics, path.parent, about)
    results |= {"checkpoint": str(checkpoint.path), "commit": commit(), **versions()}
    say(score_table(results, data.class_names, metrics))
    if trainer.is_global_zero:
        write_results(path, results)
        say(f"results: {path}", soft_wrap=True)
    return results


def _taken_out(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Take the keys that change parts of the checkpoint out of a config, and return them."""
    changes: dict[str, dict[str, Any]] = {}
    for part in FROM_CHECKPOINT:
        if cfg.get(part) is not None and "_target_" not in cfg[part]:
            changes[part] = cast(dict[str, Any], OmegaConf.to_container(cfg[part], resolve=True))
            cfg[part] = None
    return changes


def _parts(
    checkpoint: Checkpoint,
    cfg: DictConfig,
    trust: Sequence[str],
    changes: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the configs to build as plain data; parts that are null come from the checkpoint."""
    stored, file = checkpoint.config, checkpoint.config_file
    parts = {"model": building.check("model", stored.get("model"), file, trust)}
    for part in EVALUATED:
        if cfg.get(part) is not None:
            # The new part may contain references to the seed and to options of the model.
            whole = OmegaConf.create({"model": parts["model"], "seed": cfg.seed, part: cfg[part]})
            parts[part] = cast(dict[str, Any], OmegaConf.to_container(whole, resolve=True))[part]
        elif part == "metrics":
            building.check_metrics(stored.get(part), file, trust)
            parts[part] = stored.get(part) or {}
        else:
            whole, changed = stored.get(part), changes.get(part)
            if changed and isinstance(whole, dict | None):
                whole = _changed(whole or {}, changed)
            parts[part] = building.check(part, whole, file, trust)
    if "train_transform" in parts["data"]:
        parts["data"]["train_transform"] = None  # evaluation does not need it
    building.check_network(checkpoint, trust)
    return parts


def _changed(part: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part with changed keys, also those of a part inside it, as `over` of multi-scale."""
    inner = {
        key: _changed(part[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(part.get(key), dict) and "_target_" not in value
    }
    return {**part, **changes, **inner}


def _build(
    part: str, parts: dict[str, Any], checkpoint: Checkpoint, cfg: DictConfig, trust: Sequence[str]
) -> Any:
    if cfg.get(part) is None:
        return building.build(part, parts[part], checkpoint.config_file, trust)
    return building.build_own(parts[part])
