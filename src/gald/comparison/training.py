"""The training behind an evaluation: its seed, and whether two are seeds of one arm."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gald.comparison.runs import EvaluatedRun
from gald.run.building import refuse_other_machine
from gald.run.plain import plain_data
from gald.run.results import SPLITS
from gald.run.resume import changed_options
from gald.run.shape import read_config_file
from gald.run.text_file import read_json

# Keys that change neither weights nor scores: file locations, loggers, number of workers.
IRRELEVANT_KEYS = ("name", "output_dir", "ckpt_path", "logger", "hydra")
IRRELEVANT_DATA_KEYS = ("root", "num_workers", "cache", "cache_dir", "eval_batch_size", "groups")
INITIAL = ("init_from", "model.backbone.weights", "model.host.weights")  # free in a resumption


def without_irrelevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a resolved config that decide the outcome of a training run.

    Two runs have equal parts if they differ only in file locations, loggers or the number of
    loading processes.
    """
    folder = str(config.get("output_dir"))

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): strip(part) for key, part in value.items()}
        return value.replace(folder, "RUN") if isinstance(value, str) else value

    kept = {key: strip(value) for key, value in config.items() if key not in IRRELEVANT_KEYS}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {k: v for k, v in kept["data"].items() if k not in IRRELEVANT_DATA_KEYS}
    return kept


def same_arm(a: EvaluatedRun, b: EvaluatedRun) -> tuple[bool | None, bool]:
    """Return whether two trainings differ in nothing but the seed, and whether in nothing at all.

    The first is None if a config is missing.
    """
    configs = [_config(run) for run in (a, b)]
    if not all(configs):
        return None, False
    one, other = map(without_irrelevant, configs)
    # An option that an older run does not have is off there: it is no change in one direction.
    same = not _changed(one, other) or not _changed(other, one)
    return same, same and one.get("seed") == other.get("seed")


def chose_the_checkpoint(results: Mapping[str, Any], split: str) -> str:
    """Warn of a split with the images that chose the checkpoint; empty if they did not.

    Training keeps the checkpoint with the best score on val. So scores on val are the best of
    several, and so are those on a test split with the images of val. A probe keeps its last step.

    Args:
        results: flat keys of results.json.
        split: the split that is reported.
    """
    of_val, own = (results.get(f"{name}/receipt") or {} for name in (SPLITS[0], split))
    masks = own.get("ground_truth_sha256")
    if "features" in own:  # of a probe
        return ""
    if split == SPLITS[0]:
        return (
            "The images of val chose the checkpoints, so the scores are the best of several: "
            "report --split test."
        )
    if masks is not None and masks == of_val.get("ground_truth_sha256"):
        return (
            f"The images of {split} are those of val, which chose the checkpoints, so the scores "
            "are the best of several: take a test split with other images."
        )
    return ""


def upper_bound(receipt: Mapping[str, Any], name: str) -> str:
    """Warn of a network that reads the ground truth; empty if it does not.

    Args:
        receipt: the receipt of its evaluation.
        name: what the warning calls it.
    """
    if not receipt.get("reads_truth"):
        return ""
    return (
        f"{name}: the network reads the ground truth, in evaluation too, so its scores are an "
        "upper bound and not those of a method."
    )


def _config(run: EvaluatedRun) -> dict[str, Any]:
    """Return the config of the training, from the run folder or beside its checkpoint; or {}."""
    given = run.receipt.get("checkpoint") or run.results.get("checkpoint")
    try:
        refuse_other_machine(given, "checkpoint", run.folder / "results.json")
    except ValueError:
        given = None
    beside = (run.folder / given).parents[:2] if isinstance(given, str) else ()
    for folder in (run.folder, *beside):
        try:
            if (path := folder / "config.yaml").is_file():
                return _plain(read_config_file(path), path)
            if (path := folder / "config.json").is_file():
                content = read_json(path, "export the network again")
                config = content.get("config") if isinstance(content, dict) else None
                return _plain(config, path) if isinstance(config, dict) else {}
        except (OSError, ValueError):  # whatever it holds, the scores can be compared
            continue
    return {}


def _plain(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    return {str(key): value for key, value in plain_data(config, path).items()}


def _changed(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two configs differ in more than seeds, devices and what is only reported."""
    if any(_at(one, key) != _at(other, key) for key in INITIAL):
        return True
    return any(key.rpartition(".")[2] != "seed" for key in changed_options(one, other))


def _at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
