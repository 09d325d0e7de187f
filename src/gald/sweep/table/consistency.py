"""`gald sweep audit FOLDER`: find differences between cells besides the declared factors."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gald.comparison.training import without_irrelevant
from gald.errors import to_sentence
from gald.run.plain import RefusedError, plain_data
from gald.run.results import SPLITS, read_results
from gald.run.shape import read_config_file
from gald.sweep.cells import Sweep, split_overrides
from gald.sweep.state import read_state
from gald.sweep.table.arms import SEED, label

# Topic of a config key, by the first prefix that matches.
TOPICS = {
    "data.global_batch_size": "global batch",
    "data.micro_batch_size": "micro-batch size",
    "data.train_transform.crop_size": "crop",
    "data.train_transform": "augmentation",
    "data": "data",
    "inference": "inference",
    "metrics": "metrics",
    "model.backbone.weights": "pretrained weights",
    "model.host.weights": "pretrained weights",
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
    "images_sha256": "evaluated images",
    "ground_truth_sha256": "ground-truth masks",
    "classes_sha256": "classes",
    "inference": "inference of the evaluation",
    "metrics": "metrics of the evaluation",
    "void": "void label",
    "precision": "precision of the evaluation",
    "commit": "commit of the code",
    "version/torch": "version of torch",
}
# Groups that set a key at another place than their own path.
ELSEWHERE = {"augment": "data.train_transform.extra"}
HARMLESS = ("callbacks.heartbeat", "hydra")


class Audited(NamedTuple):
    """One cell under audit.

    Attributes:
        values: values of the declared factors, the seed included.
        config: resolved config as plain data.
    """

    values: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Short label of the cell."""
        return label(dict(self.values))


def audit(folder: Path) -> list[str]:
    """List differences between the cells of a sweep besides its factors, one sentence each.

    They are read from each cell's config.yaml and from the receipts in its results.json, one cell
    after the other. Cells without these files are skipped; a damaged file is a finding too.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: its list of cells is damaged.
        RefusedError: a config has an interpolation.
    """
    sweep = Sweep.load(folder)
    factors = sweep.factors
    trained: list[dict[str, str]] = []
    receipts = _Texts("null")
    damaged: list[str] = []

    def audited() -> Iterator[Audited]:
        for cell in sweep.cells:
            overrides = split_overrides(cell.overrides)
            values = {key: overrides.get(key, "default") for key in factors}
            place = sweep.place(cell)
            config, results = (place / name for name in ("config.yaml", "results.json"))
            with _finding(damaged, f"cell {cell.number}"):
                if config.is_file():
                    content = plain_data(read_config_file(config), config)
                    yield Audited(values, {str(key): value for key, value in content.items()})
            with _finding(damaged, f"cell {cell.number}"):
                if results.is_file() and read_state(place).state == "done":
                    receipts.add(_receipt_values(read_results(results)))
                    trained.append(values)

    differing = audit_configs(audited())
    names = [label(values) for values in trained]
    return [*damaged, *differing, *audit_seeds(trained), *_audit_receipts(receipts, names)]


@contextmanager
def _finding(findings: list[str], name: str) -> Generator[None]:
    """Turn the error of a cell's damaged file into a finding, so that it hides no other cell."""
    try:
        yield
    except RefusedError:
        raise
    except (OSError, ValueError) as error:
        findings.append(f"{name} cannot be checked: {to_sentence(error)}")


class _Texts:
    """Values of many cells as JSON, by key; a text that cells share is kept once.

    Args:
        missing: text of a key that a cell does not have.
    """

    def __init__(self, missing: str) -> None:
        self.missing, self.cells = missing, 0
        self.by_key: dict[str, list[str]] = {}
        self._known: dict[str, str] = {}

    def add(self, values: Iterable[tuple[str, Any]]) -> None:
        """Add the values of one cell; of a key that is there twice the last one."""
        for key, value in dict(values).items():
            text = json.dumps(value)
            texts = self.by_key.setdefault(key, [])
            texts += [self.missing] * (self.cells - len(texts))
            texts.append(self._known.setdefault(text, text))
        self.cells += 1

    def differing(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the keys in which cells differ, with the text of each cell."""
        for key, texts in self.by_key.items():
            filled = texts + [self.missing] * (self.cells - len(texts))
            if len(set(filled)) > 1:
                yield key, filled


def audit_configs(cells: Iterable[Audited]) -> list[str]:
    """List config keys that differ although they belong to no factor, one sentence each."""
    texts, declared = _Texts("unset"), []
    for cell in cells:
        declared.append(cell.values)
        texts.add(_flatten(without_irrelevant(cell.config)))
    names = [label(dict(values)) for values in declared]
    return [
        _sentence(f"{_topic(key)} ({key})", values, names)
        for key, values in texts.differing()
        if not _declared(key, values, declared)
    ]


def audit_seeds(cells: Sequence[Mapping[str, str]]) -> list[str]:
    """Report arms with other seeds than most arms; a cell is given by its factor values."""
    seeds: dict[str, set[str]] = {}
    for values in cells:
        rest = {key: value for key, value in values.items() if key != SEED}
        seeds.setdefault(label(rest), set()).add(values.get(SEED, "one"))
    texts = [", ".join(sorted(s, key=lambda n: (len(n), n))) for s in seeds.values()]
    return [_sentence("set of seeds", texts, list(seeds))] if len(set(texts)) > 1 else []


def _receipt_values(results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of the receipts that should be equal, by split and key."""
    for split in SPLITS:
        receipt = results.get(f"{split}/receipt") or {}
        for key in RECEIPT:
            yield f"{split}, {key}", receipt.get(key)


def _audit_receipts(receipts: _Texts, names: Sequence[str]) -> list[str]:
    findings: dict[tuple[str, ...], str] = {}  # the same finding in both splits counts once
    for place, values in receipts.differing():
        key = place.partition(", ")[2]
        sentence = _sentence(f"{RECEIPT[key]} ({place})", values, names)
        findings.setdefault((key, *values), sentence)
    return list(findings.values())


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield from _flatten(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def _declared(key: str, values: Sequence[str], cells: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a key lies below a factor, or only repeats the value of a factor."""
    factors = list(cells[0])
    below = [factor.partition("@")[0].replace("/", ".") for factor in factors]
    below = [ELSEWHERE.get(name.lstrip("+"), name) for name in below]
    if key.startswith(HARMLESS) or any(f"{key}.".startswith(f"{name}.") for name in below):
        return True
    bare = [value.strip('"') for value in values]
    return any(bare == [cell[factor] for cell in cells] for factor in factors)


def _topic(key: str) -> str:
    return next((words for start, words in TOPICS.items() if key.startswith(start)), "setting")


def _sentence(what: str, values: Sequence[str], names: Sequence[str]) -> str:
    groups: dict[str, list[str]] = {}
    for value, name in zip(values, names, strict=True):
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
