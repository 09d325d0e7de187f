"""Make an entry of the zoo from a run: weights of half precision, evaluated, with a model card.

python -m gald.export.zoo_entry runs/demo --to zoo/demo --licence mit
python -m gald.export.zoo_entry runs/mine --to zoo/mine --licence cc-by-nc-4.0 --data-root FOLDER
"""

import io
import re
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import cyclopts
import torch
from omegaconf import open_dict
from torch import Tensor

from gald.config import compose
from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.checkpoint import evaluate_checkpoint
from gald.export.zoo_card import Facts, model_card
from gald.prediction.predictor import load, without_local_paths
from gald.progress import say
from gald.run.atomic import new_folder
from gald.run.building import build, check
from gald.run.checkpoint import WEIGHTS, read_checkpoint
from gald.run.provenance import sha256
from gald.run.results import SPLITS, Results, read_results, write_results
from gald.run.trunk import trunk_key

LARGEST = 10 * 10**6  # bytes of the weights of an entry
LARGEST_COUNTS = 400 * 10**3  # bytes of the counts per image; larger ones are left out
# What a card says of a training
FACTS = ("params", "cost/total/gmacs", "epochs", "steps", "seed", "seconds", "device", "command")
FACTS += ("commit", "version/torch")
_EXACT = 2**-10  # of a tensor's largest value; the error that numbers of 16 bits make is half of it
_REPLACED = ("output_dir=", "ckpt_path=", "hydra.run.dir=")  # of a command: folders of one machine


class Request(NamedTuple):
    """What the maintainer decides about an entry.

    Attributes:
        licence: SPDX identifier of the licence of the weights.
        data_root: folder of the dataset; None is the one of the training.
        note: a further sentence about the training, for the card.
    """

    licence: str
    data_root: str | None = None
    note: str = ""


def main(
    run: Path,
    /,
    *,
    to: Path,
    licence: str,
    data_root: str | None = None,
    note: str = "",
) -> None:
    """Make an entry of the zoo from a run.

    Args:
        run: a finished run folder of gald train
        to: a new folder, zoo/NAME
        licence: SPDX identifier of the weights' licence, which the terms of the data must allow
        data_root: folder of the dataset (default: data.root of the training)
        note: a sentence about the training, for the card
    """
    add_to_zoo(run, to, Request(licence, data_root, note))


def add_to_zoo(run: Path, to: Path, request: Request) -> Results:
    """Write an entry of the zoo, complete or not at all.

    It has `config.json` and `model.safetensors` for `gald.load`, `results.json` with the scores of
    exactly these weights and their receipts, `images_test.npz` with the counts of each image, and
    `README.md`, the model card. No file names a folder of this machine.

    Args:
        run: a run folder with a checkpoint and with results of it.
        to: folder of the entry; its name is the name of the network.
        request: what the maintainer decides.

    Returns:
        The content of `results.json`.

    Raises:
        FileNotFoundError: the run has no checkpoint, or no results.
        ValueError: the name has other characters than letters, digits, `_` and `-`; the results are
            of another checkpoint; or the weights are larger than 10 MB.
    """
    to = to.expanduser().absolute()
    if not re.fullmatch(r"[\w-]+", to.name, re.ASCII):
        raise ValueError(
            f"{to.name!r} is no name for the zoo; use letters, digits, _ and - only, as in --to "
            "zoo/my_network"
        )
    trained = _read_training(run)
    source = read_checkpoint(run)
    predictor = load(source.path)
    exact = predictor.state_dict()
    with new_folder(to) as partial:
        predictor.write_files(partial, halve(exact))
        _refuse_large(partial / WEIGHTS, to.name)
        config = check("data", source.config["data"], source.config_file)
        if request.data_root is not None:
            config["root"] = str(Path(request.data_root).expanduser().absolute())
        data: SegmentationDataModule = build("data", config, source.config_file)
        results: Results = {}
        for split in SPLITS if data.has_test else SPLITS[:1]:
            say(f"evaluating {split}, with the stored weights and with those of full precision")
            results |= _evaluate(partial / WEIGHTS, config, split, "all", partial)
            full = _evaluate(source.path, config, split, "miou", None)[f"{split}/miou"]
            results[f"full_precision/{split}/miou"] = full
            say(f"{split}: mIoU {results[f'{split}/miou']:.4%}, of full precision {full:.4%}")
        results |= trained
        results["bytes"] = (partial / WEIGHTS).stat().st_size
        write_results(partial / "results.json", results)
        model = source.config["model"]
        start = str(model[trunk_key(model)].get("weights") or "")
        facts = Facts(to.name, request.licence, start.removeprefix("package:"), request.note)
        card = model_card(facts, predictor, data, results)
        (partial / "README.md").write_text(card, encoding="utf-8")
    say(f"{to}: {results['bytes'] / 1e6:.1f} MB; load it with gald.load({to.name!r})")
    return results


def halve(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store weights in 16 bits where that costs nothing but rounding.

    Matrices and kernels become float16. Vectors stay as they are: biases, and scales and statistics
    of normalisations, which are a hundredth of the bytes and can be large. So does a tensor with
    values that are too large or too small for float16.
    """
    return {name: _halve(value) for name, value in state.items()}


def _halve(value: Tensor) -> Tensor:
    if value.ndim < 2 or value.dtype != torch.float32:
        return value
    half = value.half()
    error = (half.float() - value).abs().max()  # infinite, if a value is too large
    return half if error <= _EXACT * value.abs().max() else value


def _read_training(run: Path) -> Results:
    """Return the results of a training that are not scores: cost, seed, command, versions."""
    results = read_results(run.expanduser() / "results.json")
    checkpoint = read_checkpoint(run).path
    known = {results[key].get("checkpoint_sha256") for key in results if key.endswith("/receipt")}
    if known != {sha256(checkpoint)}:
        raise ValueError(
            f"{run / 'results.json'} is not of {checkpoint}, its SHA-256 differs; give the folder "
            "of a finished training"
        )
    kept = {key: value for key, value in results.items() if key.split("/")[0] not in SPLITS}
    missing = [key for key in FACTS if kept.get(key) is None]
    if missing:
        raise ValueError(
            f"{run / 'results.json'} has no {missing[0]}, which the card states; give the folder "
            "of a finished training by this version of gald"
        )
    words = [word for word in kept["command"].split() if not word.startswith(_REPLACED)]
    kept["command"] = " ".join(map(_without_place, words))
    return kept


def _without_place(word: str) -> str:
    """Replace the folder in `data.root=FOLDER`, which is of one machine."""
    key, _, value = word.partition("=")
    return f"{key}=/path/to/{Path(value).name}" if Path(value).is_absolute() else word


def _refuse_large(weights: Path, name: str) -> None:
    size = weights.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"the weights of {name} have {size / 1e6:.1f} MB, and an entry of the zoo at most "
            f"{LARGEST / 1e6:.0f}; train a smaller network"
        )


def _evaluate(
    weights: Path, data: dict[str, Any], split: str, metrics: str, entry: Path | None
) -> Results:
    """Evaluate weights as `gald eval` does; keep the counts of test images in the entry."""
    cfg = compose("eval", [f"metrics={metrics}"])
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        with open_dict(cfg):
            cfg.data = data
            cfg.ckpt_path, cfg.split, cfg.output_dir = str(weights), split, folder
        cfg.trainer.accelerator, cfg.trainer.devices = "cpu", 1
        found = evaluate_checkpoint(cfg)
        counts = Path(folder) / f"images_{split}.npz"
        if entry is not None and split == "test" and counts.stat().st_size <= LARGEST_COUNTS:
            (entry / counts.name).write_bytes(counts.read_bytes())
    receipt = without_local_paths(found[f"{split}/receipt"]) | {"checkpoint": WEIGHTS}
    scores = {key: value for key, value in found.items() if key.startswith(f"{split}/")}
    return scores | {f"{split}/receipt": receipt}


if __name__ == "__main__":
    cyclopts.run(main)
