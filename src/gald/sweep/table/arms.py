"""The finished runs of a sweep, sorted into arms: one arm is one way to train, with its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gald.comparison.runs import EvaluatedRun, check_pair, read_run
from gald.sweep.manifest import Manifest, split_overrides

SEED = "seed"


@dataclass
class Arm:
    """One way to train.

    Args:
        values: of each factor, the seed left out.
        label: the same for people.
        runs: what was judged, by training seed.
    """

    values: dict[str, str]
    label: str
    runs: dict[int, EvaluatedRun] = field(default_factory=dict)


class MissingCell(NamedTuple):
    """A cell that the table misses: its arm, its seed, its state, and why."""

    arm: str
    seed: str
    state: str
    reason: str


@dataclass
class SweepRuns:
    """All that a table needs of a sweep.

    Args:
        name: of the sweep.
        split: that its runs were judged on.
        factors: keys with more than one value, and these in order of declaration; no seed.
        arms: those with at least one run, in order of declaration.
        lacks: cells without a run that can be compared.
        notes: what was run otherwise than declared.
    """

    name: str
    split: str
    factors: dict[str, list[str]]
    arms: list[Arm]
    missing_cells: list[MissingCell]
    notes: list[str]


def read_sweep(folder: Path, split: str = "val") -> SweepRuns:
    """Read the runs of a sweep; what cannot be read or compared is listed with the reason.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: its manifest is damaged, or no cell has a run.
    """
    manifest = Manifest.load(folder)
    factors = {key: values for key, values in manifest.factors.items() if key != SEED}
    arms: dict[tuple[str, ...], Arm] = {}
    missing_cells: list[MissingCell] = []
    notes: list[str] = []
    first: EvaluatedRun | None = None
    for cell in manifest.cells.values():
        said = split_overrides(cell.overrides)
        values = {key: said.get(key, "default") for key in factors}
        arm = arms.setdefault(tuple(values.values()), Arm(values, label(values)))
        seed = said.get(SEED, "")
        if cell.state != "done":
            missing_cells.append(MissingCell(arm.label, seed, cell.state, cell.reason or ""))
            continue
        try:
            run = read_run(folder / cell.folder, split)
            if first is not None:
                check_pair(first, run, split)
            trained = int(run.results.get("seed", seed or 0))
            if trained in arm.runs:
                raise ValueError(
                    f"seed {trained} was already trained by {arm.runs[trained].folder}"
                )
        except (OSError, ValueError) as error:
            missing_cells.append(MissingCell(arm.label, seed, "unreadable", str(error)))
            continue
        first = first or run
        arm.runs[trained] = run
        if cell.micro_batch_size is not None:
            notes.append(
                f"{arm.label}, seed {trained}: {cell.micro_batch_size} images at once instead of "
                "as declared, since memory did not hold more; batch norms saw fewer images"
            )
    kept = [arm for arm in arms.values() if arm.runs]
    if not kept:
        why = (
            f"; of the first: {missing_cells[0].state} {missing_cells[0].reason}".rstrip()
            if missing_cells
            else ""
        )
        raise ValueError(
            f"none of the {len(manifest.cells)} cells of {folder} has results of {split}{why}"
        )
    return SweepRuns(manifest.name, split, factors, kept, missing_cells, notes)


def label(values: dict[str, str]) -> str:
    """An arm in few words: `ga=psp ld=none`; whole keys where their last words are the same."""
    short = {key: key.replace("/", ".").rpartition(".")[2] for key in values}
    clash = len(set(short.values())) < len(short)
    words = (f"{key if clash else short[key]}={value}" for key, value in values.items())
    return " ".join(words) or "all runs"


def find_baseline(arms: Sequence[Arm], factors: dict[str, list[str]], wanted: str | None) -> int:
    """The place of the arm that the others are compared with.

    Args:
        arms: of a sweep.
        factors: its factors.
        wanted: as `model/ga=none model/ld=none`; None takes `none` where a factor has it and else
            the first value, or the first arm if there is no such.

    Raises:
        ValueError: no arm or more than one is meant.
    """
    if wanted is None:
        usual = {key: "none" if "none" in of else of[0] for key, of in factors.items()}
        return next((i for i, arm in enumerate(arms) if arm.values == usual), 0)
    pairs = split_overrides(wanted.split())
    fits = [i for i, arm in enumerate(arms) if _means(pairs, arm)]
    if len(fits) != 1:
        raise ValueError(
            f"{len(fits)} arms are {wanted!r}; name one of "
            + ", ".join(repr(" ".join(f"{k}={v}" for k, v in arm.values.items())) for arm in arms)
        )
    return fits[0]


def _means(pairs: dict[str, str], arm: Arm) -> bool:
    """Whether an arm has these values; a key may be given by its last word."""
    ends = {key.replace("/", ".").rpartition(".")[2]: value for key, value in arm.values.items()}
    known = ends | arm.values
    return all(known.get(key) == value for key, value in pairs.items())
