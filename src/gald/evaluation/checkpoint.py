"""Evaluate the network of a checkpoint, on its own data or on others of the same classes."""

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from gald.cli import silence_warnings
from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.evaluate import EVALUATED, build_metrics, describe, evaluate
from gald.evaluation.score_table import score_table
from gald.run.checkpoint import Checkpoint, load_weights, read_checkpoint, without_initial_weights
from gald.run.provenance import commit, versions
from gald.run.results import SPLITS, Results, write_results
from gald.run.safe_targets import check_targets


def evaluate_checkpoint(cfg: DictConfig) -> Results:
    """Rebuild the network of a checkpoint, score a split, write `results.json`.

    Args:
        cfg: as conf/eval.yaml; a part that is null is taken from the checkpoint.

    Raises:
        ValueError: the split is unknown, the folder holds results that these would replace, the
            data's classes are not the network's, or a config would build foreign code.
    """
    silence_warnings()
    if cfg.split not in SPLITS:
        raise ValueError(f"split is {cfg.split!r}; choose {' or '.join(SPLITS)}")
    receipt = Path(cfg.output_dir) / "results.json"
    if receipt.exists():
        raise ValueError(f"{receipt} already holds results; choose another output_dir")
    checkpoint = read_checkpoint(cfg.ckpt_path)
    parts = _parts(checkpoint, cfg)
    built = OmegaConf.create(parts)

    data: SegmentationDataModule = instantiate(built.data)
    known = checkpoint.class_names
    if list(data.class_names) != known:
        raise ValueError(
            f"the network knows {len(known)} classes ({', '.join(known)}), the data has "
            f"{data.num_classes} ({', '.join(data.class_names)}); evaluate on data of its classes"
        )
    if cfg.split == "test" and not data.has_test:
        raise ValueError(
            f"{type(data).__name__} has no public test labels; choose split=val, the split that "
            "papers compare on"
        )
    model = instantiate(built.model, num_classes=data.num_classes)
    load_weights(model, checkpoint)
    trainer: pl.Trainer = instantiate(cfg.trainer, logger=False)
    metrics = build_metrics(built.metrics, data.num_classes)
    about = describe(parts, checkpoint.path)
    inference = instantiate(built.inference)
    results = evaluate(trainer, model, inference, data, cfg.split, metrics, receipt.parent, about)
    results |= {"checkpoint": str(checkpoint.path), "commit": commit(), **versions()}
    say = rank_zero_only(Console().print)
    say(score_table(results, data.class_names, metrics))
    if trainer.is_global_zero:
        write_results(receipt, results)
        say(f"results: {receipt}", soft_wrap=True)
    return results


def _parts(checkpoint: Checkpoint, cfg: DictConfig) -> dict[str, Any]:
    """The configs to build, as plain data, from the checkpoint where `cfg` leaves them null."""
    trained = without_initial_weights(checkpoint.config)
    for part in EVALUATED:
        if cfg.get(part) is not None:
            # The new part may refer to the seed, and to how the trained network resizes.
            whole = OmegaConf.create({"model": trained.model, "seed": cfg.seed, part: cfg[part]})
            OmegaConf.resolve(whole)
            trained[part] = whole[part]
    trained.data.train_transform = None  # evaluation builds nothing that it does not use
    kept = OmegaConf.create({part: trained[part] for part in (*EVALUATED, "model")})
    parts = cast(dict[str, Any], OmegaConf.to_container(kept, resolve=True))
    check_targets(parts)
    return parts
