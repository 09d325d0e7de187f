"""`gald table SWEEP`: which arms of an ablation differ by more than noise, where, at what cost?"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from gald.cli import Arguments
from gald.comparison.report import Section, screen_table, write_report
from gald.run.atomic import new_folder, refuse_filled
from gald.run.results import SPLITS
from gald.sweep.table.analysis import Analysis, analyse
from gald.sweep.table.arms import SweepRuns, find_baseline, read_sweep
from gald.sweep.table.consistency import audit
from gald.sweep.table.latex import latex_table
from gald.sweep.table.sections import conclusion, sections
from gald.sweep.table.spreadsheet import arms_csv, runs_csv

FORMATS = ("md", "latex", "csv", "html")
TITLE = "Which arms differ by more than noise?"


def main() -> None:
    """Report on the sweep that the command line names."""
    parser = Arguments("gald table", description="which arms differ, where, and at what cost?")
    parser.add_argument("sweep", type=Path, help="folder of a sweep, as gald train -m printed it")
    parser.add_argument("--to", type=Path, metavar="DIR", help="a new folder for all formats")
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val")
    parser.add_argument("--baseline", metavar="KEYS", help="'model/ga=none model/ld=none'")
    parser.add_argument("--format", choices=FORMATS, help="print this instead of a screen table")
    parser.add_argument(
        "--measure", action="store_true", help="latency and memory of each arm, here and now"
    )
    parser.add_argument("--samples", type=int, default=10_000, help="draws (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    flags = parser.parse_args(sys.argv[1:])
    print_table(
        flags.sweep,
        flags.to,
        flags.split,
        flags.baseline,
        flags.format,
        flags.samples,
        flags.seed,
        flags.measure,
    )


def print_table(
    folder: Path,
    to: Path | None = None,
    split: str = "val",
    baseline: str | None = None,
    form: str | None = None,
    samples: int = 10_000,
    seed: int = 0,
    measuring: bool = False,
) -> Analysis:
    """Analyse the finished runs of a sweep, print the table and write it where asked.

    Args:
        folder: of the sweep; may still run.
        to: a folder for `report.md`, `report.html`, `table.tex`, `table.csv`, `runs.csv` and the
            pictures; must be empty or not there, and appears whole or not at all.
        split: `val` or `test`.
        baseline: the arm that others are compared with, as `model/ga=none model/ld=none`; None is
            where every factor is `none`, or its first value if it has no such.
        form: one of `FORMATS` to print instead of the screen's table.
        samples: how often to draw the images.
        seed: what they are drawn from.
        measuring: whether to build each arm's network and time it on this machine; cells that ran
            side by side could not be timed then.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: there is no run yet, the baseline is not one arm, or `to` holds something.
    """
    if to is not None:
        to = to.expanduser().absolute()
        refuse_filled(to, "choose another folder with --to")
    if samples < 100:
        raise ValueError(f"--samples is {samples}; ends of an interval need at least 100")
    folder = folder.expanduser()
    sweep = read_sweep(folder, split)
    if measuring:
        _measure(sweep)
    base = find_baseline(sweep.arms, sweep.factors, baseline)
    found = analyse(sweep, base, samples, seed)
    said, parts = conclusion(sweep, found), sections(sweep, found, audit(folder))
    runs = sum(len(arm.runs) for arm in sweep.arms)
    about = (
        f"Sweep {sweep.name}: {len(sweep.arms)} arms, {runs} runs, judged on {found.images} images "
        f"of {split}."
    )
    latex = _latex(sweep, parts)
    if to is not None:
        with new_folder(to) as whole:
            write_report(whole, TITLE, said, about, parts)
            (whole / "table.tex").write_text(latex, encoding="utf-8")
            (whole / "table.csv").write_text(arms_csv(sweep, found), encoding="utf-8")
            (whole / "runs.csv").write_text(runs_csv(sweep), encoding="utf-8")
    if form is None:
        _show(said, parts, to)
    elif form in ("latex", "csv"):
        print(latex if form == "latex" else arms_csv(sweep, found), end="")
    else:
        shown = [part._replace(picture=None) for part in parts] if form == "md" else parts
        with tempfile.TemporaryDirectory() as scratch:
            write_report(Path(scratch), TITLE, said, about, shown)
            print((Path(scratch) / f"report.{form}").read_text(encoding="utf-8"), end="")
    return found


def _measure(sweep: SweepRuns) -> None:
    """Add latency and memory to the results of all runs, measured once for each arm."""
    from gald.sweep.cell_cost import (
        evaluation_costs,  # builds networks, which the table alone does not
    )

    console = Console(stderr=True)
    for arm in track(sweep.arms, "measuring networks", console=console, transient=True):
        runs = list(arm.runs.values())
        config = OmegaConf.load(runs[0].folder / "config.yaml")
        assert isinstance(config, DictConfig)
        costs = evaluation_costs(config)
        for run in runs:
            run.results.update(costs)


def _show(said: str, parts: Sequence[Section], to: Path | None) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a log has room; no number is to be cut
    console.print(said, style="bold", soft_wrap=True, highlight=False)
    for part in parts:
        if not part.header or part.title == "Classes":
            continue
        console.print(screen_table(part, part.header))
        if part.title == "Main effects":
            console.print(part.words, highlight=False)
    if to is not None:
        console.print(f"report: {to / 'report.html'}", soft_wrap=True)


def _latex(sweep: SweepRuns, parts: Sequence[Section]) -> str:
    """Arms with scores, differences and costs in one table."""
    arms = next(part for part in parts if part.title == "Arms")
    where = next(part for part in parts if part.title == "Where, and at what cost")
    more = {row[0]: list(row[2:]) for row in where.rows}
    empty = [""] * (len(where.header) - 2)
    rows = [[*row, *more.get(row[0], empty)] for row in arms.rows]
    caption = f"Sweep {sweep.name}, {sweep.split}. {arms.words}"
    return latex_table([*arms.header, *where.header[2:]], rows, caption)
