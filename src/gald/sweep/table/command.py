"""`gald table SWEEP`: which arms differ, where, and at what cost?"""

from pathlib import Path
from typing import Literal

from gald.command_line.app import Trust


def main(  # noqa: PLR0913  every option of the command is a key of its own
    sweep: Path,
    /,
    *more: Path,
    to: Path | None = None,
    split: Literal["val", "test"] = "val",
    baseline: str | None = None,
    format: Literal["md", "latex", "csv", "html"] | None = None,
    measure: bool = False,
    samples: int = 10_000,
    seed: int = 0,
    block: int | None = None,
    margin: float | None = None,
    image: str | None = None,
    trust: Trust = (),
) -> None:
    """Print which arms of an ablation differ, where, and at what cost.

    Args:
        sweep: folder of a sweep, as gald train -m printed it
        more: sweeps of the same arms on other datasets, for one analysis of all
        to: a new folder for all formats
        split: val or test
        baseline: baseline arm, such as 'model/ga=none model/ld=none'
        format: print this instead of a table for the screen
        measure: measure latency and memory of each arm on this machine
        samples: number of bootstrap samples
        seed: seed of the bootstrap
        block: frames that are drawn together (default: whole groups, or 20 if groups are few)
        margin: mIoU difference in points that counts as none, to test equivalence
        image: draw this image by every arm in the report, or 'median' for the one of median change
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.sweep.table.table import print_table, print_tables

    if more:
        if format is not None or measure or margin is not None or image is not None:
            raise ValueError(
                f"--format, --measure, --margin and --image are for one sweep, and "
                f"{1 + len(more)} are given; leave them out, or give one sweep"
            )
        print_tables([sweep, *more], to, split, baseline, samples, seed, trust, block)
        return
    print_table(
        sweep, to, split, baseline, format, samples, seed, measure, trust, block, margin, image
    )
