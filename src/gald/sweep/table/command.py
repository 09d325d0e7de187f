"""`gald table SWEEP`: which arms differ, where, and at what cost?"""

from pathlib import Path
from typing import Literal

from gald.command_line.app import Trust


def main(
    sweep: Path,
    /,
    *,
    to: Path | None = None,
    split: Literal["val", "test"] = "val",
    baseline: str | None = None,
    format: Literal["md", "latex", "csv", "html"] | None = None,
    measure: bool = False,
    samples: int = 10_000,
    seed: int = 0,
    trust: Trust = (),
) -> None:
    """Print which arms of an ablation differ, where, and at what cost.

    Args:
        sweep: folder of a sweep, as gald train -m printed it
        to: a new folder for all formats
        split: val or test
        baseline: baseline arm, such as 'model/ga=none model/ld=none'
        format: print this instead of a table for the screen
        measure: measure latency and memory of each arm on this machine
        samples: number of bootstrap samples
        seed: seed of the bootstrap
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.sweep.table.table import print_table

    print_table(sweep, to, split, baseline, format, samples, seed, measure, trust)
