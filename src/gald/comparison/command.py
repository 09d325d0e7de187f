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
    block: int | None = None,
    seed_sd: float | None = None,
    margin: float | None = None,
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
        block: frames that are drawn together (default: whole groups, or 20 if groups are few)
        seed_sd: deviation of mIoU between seeds in points, to widen the interval
        margin: mIoU difference in points that counts as none, to test equivalence
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.comparison.compare import compare  # imports torch, which takes seconds

    try:
        compare(run_a, run_b, split, to, samples, seed, trust, block, seed_sd, margin)
    except KeyboardInterrupt:
        fail(
            "interrupted, nothing was written; --samples 1000 takes a tenth of the time",
            INTERRUPTED,
        )
