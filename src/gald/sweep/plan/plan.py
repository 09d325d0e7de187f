"""`gald sweep plan ...`: cells of `gald train -m ...`, their cost, and what they can detect."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gald.cli import silence_warnings
from gald.comparison.bootstrap import ROUNDING
from gald.config import refuse_words
from gald.errors import to_sentence
from gald.run.new_folders import refuse_unwritable
from gald.run.slots import check_trust
from gald.sweep.cell_cost import TrainingCost, Workload, architecture, probe, workload_of
from gald.sweep.cells import declare, number_cells
from gald.sweep.compose import Need, fill
from gald.sweep.grid import primary_of
from gald.sweep.launch.devices import Devices
from gald.sweep.launch.live_table import duration
from gald.sweep.plan.grid import Entry, declared_cells, plan_entries
from gald.sweep.plan.power import Assumption, detectable_by_contrast, power_sentence
from gald.sweep.table.arms import SEED, Arm, SweepRuns, find_baseline, label, read_sweep
from gald.sweep.table.columns import Column, columns, values
from gald.sweep.table.consistency import Audited, audit_configs, audit_seeds
from gald.sweep.table.contrasts import Deviation, seed_deviation
from gald.sweep.table.primary import MIOU, read_primary


def write_plan(words: Sequence[str], folder: Path) -> None:
    """Declare the cells of a multirun in a folder, and print how to run them.

    Raises:
        ValueError: an override is wrong, or the folder holds a different sweep.
    """
    refuse_words("sweep plan", words, "train")
    folder = folder.expanduser()
    refuse_unwritable(folder, "--to")
    master, declared = declared_cells(words, folder)
    command = ["gald", "train", "-m", *words]
    cells = declare(folder, str(master.name), command, declared, primary_of(master.hydra))
    count = len({cell.number for cell in cells})
    print(f"{count} cells in {folder}; to run them: gald sweep run {folder}")
    print(f"one cell, N from 0 to {count - 1}: gald sweep run {folder} --cell N")


def plan(
    words: Sequence[str],
    baseline: str | None = None,
    difference: float = 0.5,
    deviation: str | None = None,
    probing: bool = True,
    trust: Sequence[str] = (),
) -> list[Entry]:
    """Print the cells of a multirun, their cost, and warnings; nothing is written.

    Args:
        words: overrides as `gald train -m` takes them.
        baseline: the arm that the others will be compared with, see `gald table`.
        difference: mIoU difference to detect, in points.
        deviation: paired standard deviation of mIoU between seeds, in points, or the folder of a
            finished sweep, a pilot, to estimate it from; None assumes one, and says so.
        probing: whether to build each distinct network and time a few steps.
        trust: packages of your own with classes that the runs of the finished sweep may name.

    Returns:
        the cells without duplicates.

    Raises:
        ValueError: an override is wrong, the sweeper chooses its cells while it runs, a number is
            not above 0, or the sweep's folder cannot be written.
    """
    silence_warnings()
    pilot = _pilot(deviation, check_trust(trust))
    assumed = _assumption(deviation, pilot)
    if not (0 < difference < math.inf and 0 < assumed.points < math.inf):
        raise ValueError(
            f"--difference is {difference:g} and --sd is {assumed.points:g}; both must be above 0"
        )
    refuse_words("sweep plan", words, "train")
    master, declared = declared_cells(words)
    folder = Path(master.hydra.sweep.dir)
    refuse_unwritable(folder, "hydra.sweep.dir")
    cells = number_cells(declared, words)
    entries = plan_entries(folder, cells, words)
    arms: dict[str, list[Entry]] = {}
    for entry in entries:
        arms.setdefault(label(entry.arm), []).append(entry)
    factors = _factors(entries)
    empty_arms = [Arm(cells[0].arm, name) for name, cells in arms.items()]
    base = empty_arms[find_baseline(empty_arms, factors, baseline)]

    console = Console(markup=False, emoji=False, soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 400  # in a log, no line is cut
    console.print(f"sweep {folder}: {_count(len(declared), len(entries), entries)}", style="bold")
    workloads = (
        {name: workload_of(cells[0].config) for name, cells in arms.items()} if probing else {}
    )
    costs = _probe_all(arms, workloads)
    console.print(_table(arms, base, workloads, costs))
    if probing:
        for line in _estimate(master, arms, workloads, costs):
            console.print(line)
    for warning in _warnings(entries):
        console.print(f"warning: {warning}")
    fewest = min(len({entry.values.get(SEED) for entry in cells}) for cells in arms.values())
    console.print(power_sentence(len(arms), fewest, difference, assumed))
    if (words_of := primary_of(master.hydra)) is not None:
        console.print(_primary_sentence(words_of, empty_arms, fewest, assumed, pilot))
    return entries


def _factors(entries: Sequence[Entry]) -> dict[str, list[str]]:
    keys = entries[0].arm
    return {key: list(dict.fromkeys(entry.values[key] for entry in entries)) for key in keys}


def _count(declared: int, unique: int, entries: Sequence[Entry]) -> str:
    words = [f"{unique} cell{'s' if unique > 1 else ''}"]
    if declared > unique:
        words.append(f"{declared - unique} of {declared} declared are duplicates and skipped")
    done = sum(entry.done for entry in entries)
    return ", ".join([*words, f"{done} done already"] if done else words)


def _probe_all(
    arms: Mapping[str, Sequence[Entry]], workloads: Mapping[str, Workload]
) -> dict[str, TrainingCost | str]:
    """Measure each arm, equal architectures once; a text is the reason why it cannot be built."""
    probed: dict[str, TrainingCost] = {}
    costs: dict[str, TrainingCost | str] = {}
    console = Console(markup=False, emoji=False, stderr=True)
    for name in track(workloads, "probing networks", console=console, transient=True):
        config = arms[name][0].config
        try:
            fill(config)
            key = architecture(config, workloads[name])
            probed[key] = probed.get(key) or probe(config, workloads[name])
            costs[name] = probed[key]
        except Exception as error:  # a plan has to report networks that cannot be built
            costs[name] = to_sentence(error)
    return costs


def _table(
    arms: Mapping[str, Sequence[Entry]],
    base: Arm,
    workloads: Mapping[str, Workload],
    costs: Mapping[str, TrainingCost | str],
) -> Table:
    table = Table("arm", "seeds", "differs from the baseline in")
    if workloads:
        for title in ("params (M)", "GMACs", "ms per step", "training MiB", "time per cell"):
            table.add_column(title, justify="right")
    for name, cells in arms.items():
        changed = [f"{k}={v}" for k, v in cells[0].arm.items() if base.values.get(k) != v]
        seeds = " ".join(dict.fromkeys(entry.values.get(SEED, "one") for entry in cells))
        row = [name, seeds, " ".join(changed) or "baseline"]
        cost = costs.get(name)
        if isinstance(cost, TrainingCost):
            seconds = cost.seconds(workloads[name])
            row += [f"{cost.params / 1e6:.3g}", f"{cost.gmacs:.3g}"]
            row += [f"{cost.step_ms * workloads[name].accumulate:.3g}", f"{cost.mib:.0f}"]
            row.append("no dataset" if seconds is None else duration(seconds))
        elif cost is not None:
            row[2] += " (cannot train, see below)"
        table.add_row(*row)
    return table


def _estimate(
    master: DictConfig,
    arms: Mapping[str, Sequence[Entry]],
    workloads: Mapping[str, Workload],
    costs: Mapping[str, TrainingCost | str],
) -> list[str]:
    lines = [
        f"warning: {name} cannot train: {c}" for name, c in costs.items() if isinstance(c, str)
    ]
    known = {name: cost for name, cost in costs.items() if isinstance(cost, TrainingCost)}
    times = []
    for name, cost in known.items():
        seconds = cost.seconds(workloads[name])
        if seconds is None:
            lines.append(
                f"time: unknown, because the dataset of {name} is not on this machine and "
                "trainer.max_steps is not set"
            )
            return lines
        times += [seconds for entry in arms[name] if not entry.done]
    if not times:
        return lines
    parallel = _parallel_cells(master, next(iter(arms.values()))[0].config)
    side_by_side = max(sum(times) / parallel, max(times))
    lines.append(
        f"time: {duration(sum(times))} for {len(times)} cells one after the other, about "
        f"{duration(side_by_side)} on this machine with {parallel} at once; data loading, logging "
        "and contention between parallel cells are not included"
    )
    largest = max(known, key=lambda name: known[name].mib)
    lines.append(f"memory: {known[largest].mib:.0f} MiB on each device for {largest}, the largest")
    return lines


def _parallel_cells(master: DictConfig, config: DictConfig) -> int:
    """Return the number of cells that the launcher would run at once on this machine."""
    launcher = master.hydra.launcher
    devices = Devices(launcher.get("jobs"), launcher.get("jobs_per_gpu", 1))
    slots = []
    while (slot := devices.take(Need.of(config.trainer))) is not None:
        slots.append(slot)
    for slot in slots:
        devices.give_back(slot)
    return max(1, len(slots))


def _warnings(entries: Sequence[Entry]) -> list[str]:
    cells = []
    for entry in entries:
        config = entry.config.copy()
        config.output_dir = config.name = "RUN"  # other paths are built from them
        content = OmegaConf.to_container(config, resolve=True)
        assert isinstance(content, dict)
        cells.append(Audited(entry.values, {str(key): part for key, part in content.items()}))
    return audit_configs(cells) + audit_seeds([entry.values for entry in entries])


def _pilot(given: str | None, trust: Sequence[str]) -> SweepRuns | None:
    """Read the finished sweep that `--sd` names; None if it names a number, or is left out."""
    if given is None:
        return None
    if not given.strip():
        raise ValueError(
            "--sd is empty; set it to a number of points, as in --sd 0.8, or to the folder of a "
            "finished sweep, or leave it out"
        )
    try:
        float(given)
    except ValueError:
        return read_sweep(Path(given).expanduser(), trust=trust)
    return None


def _assumption(given: str | None, pilot: SweepRuns | None) -> Assumption:
    if given is None:
        return Assumption.default()
    if pilot is None:
        return Assumption(float(given), "given by --sd")
    found = _deviation(pilot, Column("mIoU", f"{pilot.split}/miou", 100, True, "%"))
    if found is None or not found.paired > 100 * ROUNDING:
        raise ValueError(
            f"{given} has no arm with two seeds of different mIoU; set --sd to a number of points"
        )
    return Assumption.measured(found.paired, found.degrees_of_freedom, given)


def _deviation(sweep: SweepRuns, column: Column) -> Deviation | None:
    arms = [place for place, arm in enumerate(sweep.arms) for _ in arm.runs]
    seeds = [seed for arm in sweep.arms for seed in arm.runs]
    return seed_deviation(arms, seeds, [x for arm in sweep.arms for x in values(arm, column)])


def _primary_sentence(
    text: str, arms: Sequence[Arm], seeds: int, assumed: Assumption, pilot: SweepRuns | None
) -> str:
    """Describe what the primary contrast can detect; of another score only with a pilot."""
    factors = {key: list(dict.fromkeys(arm.values[key] for arm in arms)) for key in arms[0].values}
    primary = contrast = None
    with suppress(ValueError):  # a command may name a part of the cells that a file declares
        primary = read_primary(text, factors)
        contrast = primary.contrast(arms)
    if primary is None or contrast is None:
        return f"primary: {text}: these cells alone do not answer it"
    if primary.score.casefold() != MIOU.casefold():
        shown = columns(pilot.arms, pilot.split) if pilot is not None else []
        own = [one for one in shown if one.name.casefold() == primary.score.casefold()]
        found = _deviation(pilot, own[0]) if pilot is not None and own else None
        if found is None or not found.paired > own[0].factor * ROUNDING:
            return (
                f"primary: {text}: what it can detect is unknown, because the deviation of "
                f"{primary.score} between seeds is; --sd FOLDER of a pilot with that score has it"
            )
        assumed = Assumption.measured(found.paired, found.degrees_of_freedom, "the pilot")
    reach = detectable_by_contrast(len(arms), seeds, assumed.points, contrast.weights)
    size = f"{reach:.2f} points or more" if reach < math.inf else "nothing with one seed"
    return f"primary: {text}: can detect {size} ({assumed.words}; power 80%, one test at 5%)"
