"""`gald sweep audit FOLDER`: does anything but the declared factors differ between cells?"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from gald.run.results import SPLITS
from gald.sweep.command import one_folder
from gald.sweep.manifest import IRRELEVANT_DATA_KEYS, IRRELEVANT_KEYS, Manifest, split_overrides
from gald.sweep.table.arms import SEED, label

# The first that begins a key says what it is about.
TOPICS = {
    "data.global_batch_size": "global batch",
    "data.micro_batch_size": "images at once",
    "data.train_transform.crop_size": "crop",
    "data.train_transform": "augmentation",
    "data": "data",
    "inference": "inference",
    "metrics": "metrics",
    "model.backbone.weights": "pretrained weights",
    "init_from": "pretrained weights",
    "model": "network",
    "scheduler": "schedule",
    "trainer.max_": "schedule",
    "trainer.precision": "precision",
    "trainer": "trainer",
    "optimizer": "optimiser",
    "task": "optimiser",
    "loss": "loss",
}
RECEIPT = {
    "images_sha256": "judged images",
    "ground_truth_sha256": "true masks",
    "classes_sha256": "classes",
    "inference": "inference of the judges",
    "metrics": "metrics of the judges",
    "void": "void label",
    "precision": "precision of the judges",
    "commit": "commit of the code",
    "version/torch": "version of torch",
}
HARMLESS = ("callbacks.heartbeat", "hydra")


class Audited(NamedTuple):
    """One cell under audit.

    Attributes:
        values: of the declared factors, the seed included.
        config: resolved, plain data.
    """

    values: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The cell in few words."""
        return label(dict(self.values))


def main() -> int:
    """Audit the sweep that the command line names; returns 1 where there is something to see."""
    findings = audit(one_folder("audit"))
    for finding in findings:
        print(f"warning: {finding}")
    if not findings:
        print("nothing but the declared factors differs")
    return 1 if findings else 0


def audit(folder: Path) -> list[str]:
    """What differs between the cells of a sweep besides its factors, one sentence each.

    Read from each cell's config.yaml and from the receipts in its results.json; cells that have
    neither yet are passed over.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: its manifest is damaged.
    """
    manifest = Manifest.load(folder)
    factors = manifest.factors
    cells: list[Audited] = []
    receipts: list[tuple[str, dict[str, Any]]] = []
    trained: list[Mapping[str, str]] = []
    for cell in manifest.cells.values():
        said = split_overrides(cell.overrides)
        values = {key: said.get(key, "default") for key in factors}
        config, results = (folder / cell.folder / name for name in ("config.yaml", "results.json"))
        if config.is_file():
            content = OmegaConf.to_container(OmegaConf.load(config))
            assert isinstance(content, dict)
            cells.append(Audited(values, {str(key): value for key, value in content.items()}))
        if cell.state == "done" and results.is_file():
            trained.append(values)
            receipts.append((label(values), _read(results)))
    return audit_configs(cells) + audit_seeds(trained) + _audit_receipts(receipts)


def audit_configs(cells: Sequence[Audited]) -> list[str]:
    """Keys of the configs that differ although no factor says so, one sentence each."""
    flat = [dict(_flatten(_placeless(cell.config))) for cell in cells]
    findings = []
    for key in dict.fromkeys(key for one in flat for key in one):
        found = [json.dumps(one[key]) if key in one else "nothing" for one in flat]
        if len(set(found)) > 1 and not _declared(key, found, [cell.values for cell in cells]):
            names = [cell.name for cell in cells]
            findings.append(_sentence(f"{_topic(key)} ({key})", found, names))
    return findings


def audit_seeds(cells: Sequence[Mapping[str, str]]) -> list[str]:
    """Say which arms have other seeds than most; cells are values of the factors."""
    seeds: dict[str, set[str]] = {}
    for values in cells:
        rest = {key: value for key, value in values.items() if key != SEED}
        seeds.setdefault(label(rest), set()).add(values.get(SEED, "one"))
    found = [", ".join(sorted(s, key=lambda n: (len(n), n))) for s in seeds.values()]
    return [_sentence("set of seeds", found, list(seeds))] if len(set(found)) > 1 else []


def _audit_receipts(runs: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    findings: dict[tuple[str, ...], str] = {}  # one, where both splits say the same
    names = [name for name, _ in runs]
    for split in SPLITS:
        receipts = [results.get(f"{split}/receipt") or {} for _, results in runs]
        for key, topic in RECEIPT.items():
            found = [json.dumps(receipt.get(key)) for receipt in receipts]
            if len(set(found)) > 1:
                sentence = _sentence(f"{topic} ({split}, {key})", found, names)
                findings.setdefault((key, *found), sentence)
    return list(findings.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); repeat its evaluation") from error


def _placeless(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no result: where files lie, who logs."""
    folder = str(config.get("output_dir"))

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): strip(part) for key, part in value.items()}
        return value.replace(folder, "RUN") if isinstance(value, str) else value

    kept = {key: strip(value) for key, value in config.items() if key not in IRRELEVANT_KEYS}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {
            key: v for key, v in kept["data"].items() if key not in IRRELEVANT_DATA_KEYS
        }
    return kept


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield from _flatten(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def _declared(key: str, found: Sequence[str], values: Sequence[Mapping[str, str]]) -> bool:
    """Whether a key lies below a factor, or only repeats the value of one."""
    factors = list(values[0])
    below = [factor.partition("@")[0].replace("/", ".") for factor in factors]
    if key.startswith(HARMLESS) or any(f"{key}.".startswith(f"{name}.") for name in below):
        return True
    bare = [value.strip('"') for value in found]
    return any(bare == [one[factor] for one in values] for factor in factors)


def _topic(key: str) -> str:
    return next((words for start, words in TOPICS.items() if key.startswith(start)), "setting")


def _sentence(what: str, found: Sequence[str], names: Sequence[str]) -> str:
    groups: dict[str, list[str]] = {}
    for value, name in zip(found, names, strict=True):
        groups.setdefault(value, []).append(name)
    order = sorted(groups.items(), key=lambda item: -len(item[1]))
    words = [
        f"{_short(value)} in {len(cells)} ({'; '.join(cells[:2])}{'; ...' if cells[2:] else ''})"
        for value, cells in order[:4]
    ]
    rest = f", and {len(order) - 4} more" if order[4:] else ""
    return f"{what} differs outside the declared factors: {', '.join(words)}{rest}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
