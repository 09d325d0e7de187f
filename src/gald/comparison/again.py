"""Network and data of an evaluation, to predict some of its images again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gald.data.datamodule import SegmentationDataModule
from gald.data.dataset import BaseDataset
from gald.evaluation.evaluator import sha256
from gald.prediction.predictor import Predictor, load
from gald.run.building import build, refuse_other_machine
from gald.run.checkpoint import find_checkpoint
from gald.run.shape import shown


class Evaluation(Protocol):
    """An evaluation with its folder; see `gald.comparison.runs.EvaluatedRun`."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        ...

    @property
    def results(self) -> Mapping[str, Any]:
        """Flat keys of results.json."""
        ...

    @property
    def receipt(self) -> Mapping[str, Any]:
        """What was measured, on which data and with which settings."""
        ...


def network_of(run: Evaluation, trust: Sequence[str] = ()) -> Predictor:
    """Load the network of an evaluation, with the inference of its receipt.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint has changed since, or cannot be used.
        RefusedError: a file would call other code.
    """
    given = run.receipt.get("checkpoint")
    stored = run.results.get("checkpoint")
    file = run.folder / "results.json"
    for value in (given, stored):
        refuse_other_machine(value, "checkpoint", file)
        if not isinstance(value, str | None):
            raise ValueError(f"{file} holds {shown(value)} as checkpoint; evaluate again")
    path = run.folder / given if given else Path(stored or run.folder)
    path = find_checkpoint(path if path.exists() else run.folder)
    known = run.receipt.get("checkpoint_sha256")
    if known is not None and known != sha256(path):
        raise ValueError(f"{path} has changed since the evaluation in {run.folder}")
    network = load(path, trust)
    if "inference" in run.receipt:
        network.read_inference(run.receipt["inference"], run.folder / "results.json", trust)
    return network


def dataset_of(
    run: Evaluation,
    network: Predictor,
    split: str,
    trust: Sequence[str] = (),
    root: str | None = None,
) -> BaseDataset:
    """Build the dataset of an evaluation.

    Args:
        run: the evaluation.
        network: its network; its config names the data if the receipt does not.
        split: `val` or `test`.
        trust: packages with classes that the files may name too.
        root: the folder of the data, if the user names one; None is the one in the file.

    Raises:
        FileNotFoundError: there is no data.
        ValueError: the data cannot be used, or has no folder that `root` could replace.
        RefusedError: a file would call other code.
    """
    config = run.receipt.get("data") or network.config.get("data")
    if root is not None:
        if not isinstance(config, dict) or "root" not in config:
            raise ValueError(
                f"--data-root is {root}, but the data of {run.folder} is in no folder; leave "
                "--data-root out"
            )
        config = config | {"root": root}
    data: SegmentationDataModule = build("data", config, run.folder / "results.json", trust)
    return data.make_dataset(split)
