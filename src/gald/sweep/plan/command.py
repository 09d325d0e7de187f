"""`gald sweep plan KEY=VALUES ...`: what would gald train -m run, and what could it show?"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gald.command_line.app import Trust


def main(
    *words: str,
    multirun: Annotated[bool, Parameter(name=("--multirun", "-m"))] = False,
    baseline: str | None = None,
    difference: float = 0.5,
    sd: str | None = None,
    no_probe: bool = False,
    to: Path | None = None,
    trust: Trust = (),
) -> None:
    """Print cells, time, memory and the seeds that gald train -m with the same words needs.

    Args:
        words: KEY=VALUES, as for gald train -m
        multirun: accepted, but not needed
        baseline: baseline arm, such as 'model/ga=none model/ld=none'
        difference: mIoU difference to detect, in points
        sd: paired deviation between seeds in points, or a finished sweep (default: assumed)
        no_probe: do not build and time networks
        to: declare the cells in this folder, for gald sweep run
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.sweep.plan.plan import plan, write_plan  # imports torch, which takes seconds

    if to is not None:
        write_plan(words, to)
    else:
        plan(words, baseline, difference, sd, not no_probe, trust)
