"""Cells that `gald train -m` would run, composed without running them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from gald.config import CONF_DIR
from gald.sweep.launch.jobs import Job, make_job
from gald.sweep.manifest import NAME, Cell, Manifest, split_overrides
from gald.sweep.table.arms import SEED


@dataclass(frozen=True)
class Entry:
    """One cell of a plan.

    Args:
        job: what the launcher would run.
        values: values of the factors, the seed included.
        done: whether the sweep's folder already holds its result.
    """

    job: Job
    values: Mapping[str, str]
    done: bool

    @property
    def arm(self) -> dict[str, str]:
        """Values of the factors without the seed."""
        return {key: value for key, value in self.values.items() if key != SEED}


def compose_cells(words: Sequence[str]) -> tuple[DictConfig, list[Job]]:
    """Compose the cells that the overrides of a multirun declare.

    Args:
        words: overrides as `gald train -m` takes them, with lists, ranges and globs; those in
            `hydra.sweeper.params` of an experiment are added.

    Returns:
        the multirun's own config, and its cells in Hydra's order, duplicates included.

    Raises:
        ValueError: the sweeper chooses its cells while it runs.
    """
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", list(words), run_mode=RunMode.MULTIRUN)
        target = str(master.hydra.sweeper._target_)
        if not target.endswith(".BasicSweeper"):
            raise ValueError(
                f"{target.rpartition('.')[2]} chooses its cells while it runs and cannot be "
                "planned; remove hydra/sweeper=... to plan a grid"
            )
        params = master.hydra.sweeper.get("params") or {}
        typed = [str(override) for override in master.hydra.overrides.task]
        swept = [f"{key}={value}" for key, value in params.items()]
        typed_overrides = OverridesParser.create(config_loader=loader).parse_overrides(
            [*swept, *typed]
        )
        cells = BasicSweeper.split_arguments(typed_overrides, None)[0]
        return master, [make_job(loader.load_sweep_config(master, cell), typed) for cell in cells]


def plan_entries(folder: Path, jobs: Mapping[str, Job]) -> list[Entry]:
    """List the cells of a plan, and mark those that are done in the sweep's folder."""
    cells = {key: Cell(job.overrides, job.folder) for key, job in jobs.items()}
    factors = Manifest(folder, "", [], cells).factors
    known = Manifest.load(folder).cells if (folder / NAME).is_file() else {}
    entries = []
    for key, job in jobs.items():
        overrides = split_overrides(job.overrides)
        values = {factor: overrides.get(factor, "default") for factor in factors}
        entries.append(Entry(job, values, key in known and known[key].state == "done"))
    return entries
