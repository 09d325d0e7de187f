"""`gald compare RUN_A RUN_B`: where does B differ from A, by more than noise?"""

from pathlib import Path
from typing import Literal

from gald.cli import fail
from gald.command_line.app import Trust
from gald.run.preemption import INTERRUPTED


def main(
    run_a: Path,
    run_b: Path,
    /,
    *,
    split: Literal["val", "test"] | None = None,
    to: Path | None = None,
    samples: int = 10_000,
    seed: int = 0,
    trust: Trust = (),
) -> None:
    """Compare two evaluations image by image, with confidence intervals.

    Args:
        run_a: folder of gald eval or gald train, or a name of the zoo
        run_b: another, on the same images
        split: default: the first split that both have
        to: new folder for the report
        samples: number of draws
        seed: seed of the draws
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.comparison.compare import compare  # imports torch, which takes seconds

    try:
        compare(run_a, run_b, split, to, samples, seed, trust)
    except KeyboardInterrupt:
        fail(
            "interrupted, nothing was written; --samples 1000 takes a tenth of the time",
            INTERRUPTED,
        )
