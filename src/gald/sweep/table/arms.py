"""Finished runs of a sweep, grouped into arms: an arm is one way to train, with all its seeds."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gald.comparison.runs import EvaluatedRun, check_pair, read_run
from gald.comparison.training import chose_the_checkpoint, upper_bound
from gald.metrics.base import CountMetric
from gald.metrics.images import ImageCounts
from gald.run.plain import RefusedError
from gald.sweep.cells import Sweep, split_overrides
from gald.sweep.state import read_state

SEED = "seed"


@dataclass(frozen=True)
class FinishedRun:
    """Evaluated run of a sweep; the counts of its images stay in its folder until they are read.

    Args:
        folder: the run folder.
        split: split that it was evaluated on.
        results: flat keys of results.json.
        receipt: as in `EvaluatedRun`.
        class_names: K names.
        metrics: all metrics of the evaluation, ConfusionMatrix first.
        counted: names of the metrics with counts of every image.
        image_count: number of images, N.
        total: hits, true and predicted pixels of each class over all images (3, K).
    """

    folder: Path
    split: str
    results: dict[str, Any]
    receipt: dict[str, Any]
    class_names: tuple[str, ...]
    metrics: list[CountMetric]
    counted: frozenset[str]
    image_count: int
    total: np.ndarray

    @classmethod
    def of(cls, run: EvaluatedRun, split: str) -> "FinishedRun":
        """Return a run without the counts of its images."""
        # Runs have the same keys, and a thousand runs would have a thousand copies.
        results = {sys.intern(key): value for key, value in run.results.items()}
        return cls(
            run.folder,
            split,
            results,
            run.receipt,
            run.class_names,
            run.metrics,
            frozenset(run.images.metrics),
            len(run.class_counts),
            run.class_counts.sum(0),
        )

    @property
    def images(self) -> ImageCounts:
        """Counts of every image, read anew.

        Raises:
            ValueError: the file is damaged, or was evaluated again since the run was read.
        """
        return self.read()[0]

    @property
    def class_counts(self) -> np.ndarray:
        """Hits, true and predicted pixels per image and class (N, 3, K), read anew."""
        return self.read()[1]

    def read(self) -> tuple[ImageCounts, np.ndarray]:
        """Return `images` and `class_counts`."""
        path = self.folder / f"images_{self.split}.npz"
        images = ImageCounts.load(path)
        counts = images.class_counts()
        same_shape = counts.shape == (self.image_count, *self.total.shape)
        if not same_shape or (counts.sum(0) != self.total).any():
            raise ValueError(f"{path} has changed since it was read; repeat the command")
        return images, counts


@dataclass
class Arm:
    """One way to train.

    Args:
        values: value of each factor, without the seed.
        label: the values as a short, readable text.
        runs: evaluated runs by training seed.
    """

    values: dict[str, str]
    label: str
    runs: dict[int, FinishedRun] = field(default_factory=dict)


class MissingCell(NamedTuple):
    """Cell without a run that can be compared: its arm, seed, state, and the reason."""

    arm: str
    seed: str
    state: str
    reason: str


@dataclass
class SweepRuns:
    """Runs of a sweep, as a table needs them.

    Args:
        name: name of the sweep.
        split: split that the runs were evaluated on.
        factors: values of each key that has more than one, in order of declaration; without seed.
        arms: arms with at least one run, in order of declaration.
        missing_cells: cells without a run that can be compared.
        notes: deviations of runs from the declared settings.
        declared: values of all arms that were declared, in order.
        images: names of the images that every run was evaluated on.
        groups: group of each image; None if no run has groups.
        selected: warning that these images chose the checkpoints, or empty.
        primary: words of the primary contrast, or None.
    """

    name: str
    split: str
    factors: dict[str, list[str]]
    arms: list[Arm]
    missing_cells: list[MissingCell]
    notes: list[str]
    declared: list[dict[str, str]]
    images: tuple[str, ...]
    groups: tuple[str, ...] | None
    selected: str
    primary: str | None = None


def read_sweep(folder: Path, split: str = "val", trust: Sequence[str] = ()) -> SweepRuns:
    """Read the runs of a sweep, and list the cells that cannot be read or compared.

    Metrics of the packages in `trust` are read too.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: the list of cells is damaged, or no cell has a run.
        RefusedError: a run would call other code.
    """
    sweep = Sweep.load(folder)
    factors = {key: values for key, values in sweep.factors.items() if key != SEED}
    arms: dict[tuple[str, ...], Arm] = {}
    missing_cells: list[MissingCell] = []
    notes: list[str] = []
    first: EvaluatedRun | None = None
    groups, selected = None, ""
    for cell in sweep.cells:
        state = read_state(sweep.place(cell))
        overrides = split_overrides(cell.overrides)
        values = {key: overrides.get(key, "default") for key in factors}
        arm = arms.setdefault(tuple(values.values()), Arm(values, label(values)))
        seed = overrides.get(SEED, "")
        if state.state != "done":
            missing_cells.append(MissingCell(arm.label, seed, state.state, state.reason or ""))
            continue
        try:
            run = read_run(folder / cell.folder, split, trust)
            if first is not None:
                check_pair(first, run, split)
            if groups and run.images.groups not in (None, groups):
                raise ValueError(
                    f"{folder / cell.folder} has other groups of images than the cells before it; "
                    "evaluate all with the same data.groups"
                )
            _check_widths(first or run, run, split)
            trained = int(run.results.get("seed", seed or 0))
            if trained in arm.runs:
                raise ValueError(
                    f"seed {trained} of this arm already has a run, {arm.runs[trained].folder}"
                )
        except RefusedError:
            raise
        except (OSError, ValueError) as error:
            missing_cells.append(MissingCell(arm.label, seed, "unreadable", str(error)))
            continue
        first = first or run
        groups = groups or run.images.groups
        selected = selected or chose_the_checkpoint(run.results, split)
        arm.runs[trained] = FinishedRun.of(run, split)
        if len(arm.runs) == 1 and (note := upper_bound(run.receipt, arm.label)):
            notes.append(note)
        if state.micro_batch_size is not None:
            notes.append(
                f"{arm.label}, seed {trained}: micro-batch size {state.micro_batch_size} instead "
                "of the declared one, because memory ran out; batch norm saw fewer images."
            )
    kept = [arm for arm in arms.values() if arm.runs]
    if not kept:
        example = ""
        if missing_cells:
            example = f" (first cell: {missing_cells[0].state} {missing_cells[0].reason}".rstrip()
            example += ")"
        raise ValueError(
            f"none of the {len(sweep.cells)} cells in {folder} has results for {split}"
            f"{example}; see gald sweep status {folder}"
        )
    assert first is not None, "an arm with a run has read one"
    declared = [arm.values for arm in arms.values()]
    images = tuple(first.images.names)
    return SweepRuns(
        sweep.name,
        split,
        factors,
        kept,
        missing_cells,
        notes,
        declared,
        images,
        groups,
        selected,
        sweep.primary,
    )


def _check_widths(first: EvaluatedRun, run: EvaluatedRun, split: str) -> None:
    """Check that a run has counts of the metrics that the first run's receipt describes."""
    for metric in first.metrics:
        if metric.name not in run.images.metrics:
            continue
        width = run.images.width(metric.name)
        if width != metric.width:
            raise ValueError(
                f"{run.folder / f'images_{split}.npz'} has {width} counts of {metric.name} for an "
                f"image, but the metric of {first.folder / 'results.json'} has {metric.width}; "
                "evaluate both with the same metrics"
            )


def label(values: dict[str, str]) -> str:
    """Return a short label of an arm, `ga=psp ld=none`; with full keys if last words clash."""
    short = {key: _last_word(key) for key in values}
    clash = len(set(short.values())) < len(short)
    words = (f"{key if clash else short[key]}={value}" for key, value in values.items())
    return " ".join(words) or "all runs"


def find_baseline(arms: Sequence[Arm], factors: dict[str, list[str]], wanted: str | None) -> int:
    """Return the index of the arm that the others are compared with.

    Args:
        arms: arms of a sweep.
        factors: factors of the sweep.
        wanted: an arm, such as `model/ga=none model/ld=none`. None chooses the arm in which each
            factor has the value `none`, or its first value if it has no `none`; if there is no
            such arm, the first arm.

    Raises:
        ValueError: no arm or more than one matches.
    """
    if wanted is None:
        usual = {key: usual_level(levels) for key, levels in factors.items()}
        return next((i for i, arm in enumerate(arms) if arm.values == usual), 0)
    pairs = split_overrides(wanted.split())
    matches = [i for i, arm in enumerate(arms) if _matches(pairs, arm)]
    if len(matches) != 1:
        raise ValueError(
            f"{len(matches)} arms match --baseline {wanted!r}; choose one of "
            + ", ".join(repr(" ".join(f"{k}={v}" for k, v in arm.values.items())) for arm in arms)
        )
    return matches[0]


def _matches(pairs: dict[str, str], arm: Arm) -> bool:
    """Return whether an arm has these values; a key's last word will do where it is unique."""
    return all(arm.values.get(resolve(key, arm.values) or "") == v for key, v in pairs.items())


def usual_level(levels: Sequence[str]) -> str:
    """Return the level of a factor that others are compared with: none, or the first."""
    return "none" if "none" in levels else levels[0]


def resolve(word: str, keys: Iterable[str]) -> str | None:
    """Return the key that a word names: the key itself, or one that alone ends with the word."""
    known = list(keys)
    ends = [key for key in known if _last_word(key) == word]
    return word if word in known else ends[0] if len(ends) == 1 else None


def _last_word(key: str) -> str:
    return key.replace("/", ".").rpartition(".")[2]
