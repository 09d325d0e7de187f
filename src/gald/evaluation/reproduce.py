"""Repeat an evaluation from its receipt, and compare every number."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from rich.console import Console

from gald.config import compose, quote_paths
from gald.evaluation.checkpoint import evaluate_checkpoint
from gald.options.ranges import Length
from gald.run.building import build_metrics, check, check_metrics, own_paths, refuse_other_machine
from gald.run.plain import plain_data
from gald.run.provenance import sha256
from gald.run.results import Results, read_results
from gald.run.shape import check_shape
from gald.run.slots import check_trust
from gald.run.zoo import find_folder

MAY_CHANGE = ("ckpt_path=", "data.", "trainer.accelerator=", "trainer.precision=", "trust=")
# A confidence is a real number: its last digits depend on the number of threads, which add up in
# another order. Labels, and so all other scores, must be equal.
ROUNDING = 1e-6
SIGNED = ("images_sha256", "ground_truth_sha256", "classes_sha256", "predictions_sha256")

# Keys of a receipt that an evaluation is repeated from
RECEIPT = {
    "data": Mapping[str, Any],
    "inference": Mapping[str, Any],
    "metrics": Annotated[Mapping[str, Any], Length(1)],
    "precision": str,
    "checkpoint": str | None,
    **dict.fromkeys(SIGNED, str),
}


def reproduce(path: Path, overrides: list[str]) -> None:
    """Repeat the evaluation of a `results.json`, and compare every number and hash.

    One process repeats it, with the precision of the receipt: the number of processes does not
    change any number. Scores of confidences may differ by `ROUNDING`, all others by nothing.

    Args:
        path: `results.json` of a training run or an evaluation, its folder, or a name of the zoo.
        overrides: new locations, such as `data.root=FOLDER` or `ckpt_path=FILE`; also the
            accelerator and the precision.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an override is not one of these, there is no receipt, the checkpoint has
            changed, or a number differs.
    """
    overrides = [word.removeprefix("+") for word in overrides]
    for word in overrides:
        if not word.startswith(MAY_CHANGE):
            raise ValueError(
                f"gald eval --check repeats an evaluation in one process, so it cannot use {word}; "
                "it accepts ckpt_path=FILE, data.KEY=VALUE, trainer.accelerator=NAME, "
                "trainer.precision=NAME and trust=PACKAGE"
            )
    path = find_folder(path)
    path = path / "results.json" if path.is_dir() else path
    before = read_results(path)
    receipts = {k.split("/")[0]: v for k, v in before.items() if k.endswith("/receipt")}
    if not receipts:
        raise ValueError(f"{path} has no receipt; evaluate again with gald eval to get one")
    for split, receipt in receipts.items():
        known = {"checkpoint": None} | receipt  # published results may leave it out
        check_shape(path, known, RECEIPT, "evaluate again with gald eval", f"{split}/receipt")
        _refuse_without_effect(receipt, split, path, overrides)
        cfg = _config(receipt, split, path, overrides)
        if sha256(Path(cfg.ckpt_path)) != receipt.get("checkpoint_sha256"):
            raise ValueError(
                f"{cfg.ckpt_path} is not the checkpoint that {path} was measured with: its SHA-256 "
                "differs; give the right one with ckpt_path=FILE"
            )
        with tempfile.TemporaryDirectory() as folder:
            cfg.output_dir = folder
            evaluate_checkpoint(cfg)
            now = read_results(Path(folder) / "results.json")
        rounded = _of_confidence(path, split, before, overrides)
        numbers = _compare(path, split, before, now, rounded)
        Console(markup=False, emoji=False).print(
            f"{split}: {numbers} numbers and all labels equal {path}", soft_wrap=True
        )


def _refuse_without_effect(
    receipt: dict[str, Any], split: str, path: Path, overrides: list[str]
) -> None:
    """Refuse a precision of the trainer that the inference of a receipt would replace."""
    own = receipt["inference"].get("precision")
    for word in overrides:
        if own is not None and word.startswith("trainer.precision="):
            raise ValueError(
                f"{path} was measured with inference.precision={own} (in {split}/receipt), which "
                f"{word} does not change; leave {word} out"
            )


def _config(receipt: dict[str, Any], split: str, path: Path, overrides: list[str]) -> DictConfig:
    cfg = compose("eval")
    receipt = plain_data(receipt, path, f"{split}/receipt")
    own = OmegaConf.from_dotlist(overrides)
    trust = check_trust(OmegaConf.to_container(own).get("trust"))  # ty: ignore
    checkpoint = receipt.get("checkpoint")
    refuse_other_machine(checkpoint, f"{split}/receipt.checkpoint", path)
    check_metrics(receipt["metrics"], path, trust)
    with open_dict(cfg):
        cfg.metrics = receipt["metrics"]
        cfg.data = check("data", _with_places(receipt["data"], own, split, path), path, trust)
        cfg.inference = check("inference", receipt["inference"], path, trust)
        cfg.ckpt_path, cfg.split = checkpoint and str(path.parent / checkpoint), split
        cfg.trainer.devices, cfg.trainer.precision = 1, receipt["precision"]
        for override in OverridesParser.create().parse_overrides(quote_paths(overrides)):
            OmegaConf.update(cfg, override.key_or_group, override.value())
    if cfg.ckpt_path is None or not Path(cfg.ckpt_path).is_file():
        raise FileNotFoundError(
            f"the checkpoint {cfg.ckpt_path} of the receipt does not exist; give it with "
            "ckpt_path=FILE"
        )
    return cfg


def _with_places(data: dict[str, Any], own: DictConfig, split: str, path: Path) -> dict[str, Any]:
    """Fill the places that published results leave out; those that the user names follow later."""
    given = OmegaConf.to_container(own).get("data") or {}  # ty: ignore
    data = own_paths("data", data, path)
    absent = [key for key, value in data.items() if value == MISSING]
    for key in absent:
        if key not in given:
            raise ValueError(
                f"{path} leaves {split}/receipt.data.{key} out, as published results do with "
                f"folders; add data.{key}=FOLDER"
            )
    return data | dict.fromkeys(absent, ".")


def _of_confidence(path: Path, split: str, before: Results, overrides: list[str]) -> set[str]:
    """Return the keys of the scores that depend on confidences, not only on labels."""
    trust = check_trust(OmegaConf.to_container(OmegaConf.from_dotlist(overrides)).get("trust"))  # ty: ignore
    prefix = f"{split}/iou/"
    names = [key.removeprefix(prefix) for key in before if key.startswith(prefix)]
    metrics = build_metrics(before[f"{split}/receipt"]["metrics"], len(names), path, trust)
    uncertain = [metric for metric in metrics if metric.needs_confidence]
    return {f"{split}/{key}" for metric in uncertain for key in metric.score_keys(names)}


def _compare(path: Path, split: str, before: Results, now: Results, rounded: set[str]) -> int:
    """Compare two evaluations; the keys in `rounded` may differ by `ROUNDING`.

    Raises:
        ValueError: the message names the largest difference.
    """
    old_receipt, receipt = before[f"{split}/receipt"], now[f"{split}/receipt"]
    changed = [key for key in SIGNED if receipt[key] != old_receipt[key]]
    numbers = {
        key: value
        for key, value in before.items()
        if key.startswith(f"{split}/") and not isinstance(value, dict)
    }
    gaps = {key: _gap(value, now.get(key)) for key, value in numbers.items()}
    gaps = {key: gap for key, gap in gaps.items() if gap > (ROUNDING if key in rounded else 0)}
    if gaps or changed:
        worst = max(gaps, key=lambda key: gaps[key]) if gaps else None
        where = f", most at {worst}: {before[worst]} then, {now.get(worst)} now" if worst else ""
        other = [
            f"{key} {old_receipt[key]} then, {receipt.get(key)} now"
            for key in old_receipt
            if key not in ("commit", "checkpoint", *SIGNED)
            and receipt.get(key) != old_receipt[key]
            and not isinstance(old_receipt[key], dict)
        ]
        also = f"; also changed: {', '.join(other)}" if other else ""
        raise ValueError(
            f"{len(gaps)} of {len(numbers)} numbers of {path} differ{where}; "
            f"hashes that differ: {', '.join(changed) or 'none'}{also}"
        )
    return len(numbers)


def _gap(then: float | None, now: float | None) -> float:
    if then is None or now is None:
        return 0.0 if then is now else math.inf
    return abs(then - now)
