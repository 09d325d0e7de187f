"""`gald table SWEEP`: which arms of an ablation differ by more than noise, where, at what cost?"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from gald.comparison.report import Section, report_text, screen_table, write_report
from gald.run.atomic import new_folder, refuse_filled
from gald.run.new_folders import refuse_unwritable
from gald.run.slots import check_trust
from gald.sweep.table.analysis import Analysis, analyse
from gald.sweep.table.arms import Arm, SweepRuns, find_baseline, read_sweep
from gald.sweep.table.consistency import audit
from gald.sweep.table.datasets import Sampling, print_datasets
from gald.sweep.table.latex import latex_table
from gald.sweep.table.sections import conclusion, families, sections
from gald.sweep.table.spreadsheet import arms_csv, contrasts_csv, runs_csv

TITLE = "Which arms differ by more than noise?"


def print_table(  # noqa: PLR0913  every option of the command is a key of its own
    folder: Path,
    to: Path | None = None,
    split: str = "val",
    baseline: str | None = None,
    form: str | None = None,
    samples: int = 10_000,
    seed: int = 0,
    measuring: bool = False,
    trust: Sequence[str] = (),
    block: int | None = None,
    margin: float | None = None,
    image: str | None = None,
) -> Analysis:
    """Analyse the finished runs of a sweep, print the table, and write the report to a folder.

    Args:
        folder: folder of the sweep, which may still be running.
        to: a folder for `report.md`, `report.html`, `table.tex`, `table.csv`, `runs.csv`,
            `contrasts.csv` and the figures; must be empty or missing. It is written completely or
            not at all.
        split: `val` or `test`.
        baseline: the arm that others are compared with, as `model/ga=none model/ld=none`; None
            chooses `none` for every factor, or its first value if it has no `none`.
        form: md, latex, csv or html, to print instead of the screen table.
        samples: number of bootstrap samples of the images.
        seed: seed of the bootstrap.
        measuring: whether to build and time the network of each arm on this machine. Sweeps do
            not time their networks, because parallel cells slow each other down.
        trust: packages of your own with classes that the runs may name.
        block: images that are drawn together, see `gald.comparison.units`; None draws whole groups
            if there are 10 or more, blocks of 20 images if there are fewer, and single images if
            they have no groups.
        margin: difference in points that counts as none, for tests of equivalence; None uses that
            of the primary contrast, if it has one.
        image: name of an image to draw by every arm, or `median`, see `one_image`; None draws none.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: there is no run yet, the baseline does not match one arm, `to` is not empty, or
            a run would call code that is neither of gald nor of a trusted package.
    """
    to = _checked(to, samples, seed)
    if margin is not None and not 0 < margin < float("inf"):
        raise ValueError(f"--margin is {margin:g}; it must be above 0, as in --margin 0.5")
    folder = folder.expanduser()
    trust = check_trust(trust)
    sweep = read_sweep(folder, split, trust)
    if measuring:
        _measure(sweep, trust)
    base = find_baseline(sweep.arms, sweep.factors, baseline)
    drawing = to is not None or form == "html"
    drawn = [] if image is None else [_drawn(sweep, sweep.arms[base], image, drawing, trust)]
    analysis = analyse(sweep, base, samples, seed, block)
    summary = conclusion(sweep, analysis, margin)
    parts = sections(sweep, analysis, audit(folder), drawing, margin)
    parts[1:1] = drawn
    runs = sum(len(arm.runs) for arm in sweep.arms)
    about = (
        f"Sweep {sweep.name}: {len(sweep.arms)} arms, {runs} runs, evaluated on {analysis.images} "
        f"images of {split}. {sweep.selected}".rstrip()
    )
    chosen = ["--baseline", baseline] if baseline else []
    for option, value in (("--block", block), ("--margin", margin)):
        chosen += [] if value is None else [option, f"{value:g}"]
    chosen += ["--image", image] if image else []
    chosen += ["--samples", str(samples), "--seed", str(seed)]
    command = shlex.join(["gald", "table", str(folder), "--split", split, *chosen])
    latex = _latex(sweep, parts)
    if to is not None:
        with new_folder(to) as partial:
            write_report(partial, TITLE, summary, about, parts, command)
            texts = {"table.tex": latex, "table.csv": arms_csv(sweep, analysis)}
            texts |= {"runs.csv": runs_csv(sweep, analysis)}
            texts |= {"contrasts.csv": contrasts_csv(analysis)}
            for name, text in texts.items():
                (partial / name).write_text(text, "utf-8", "backslashreplace")
    if form is None:
        _show(summary, [analysis.units.words, sweep.selected, families(analysis)], parts, to)
    elif form in ("latex", "csv"):
        print(latex if form == "latex" else arms_csv(sweep, analysis), end="")
    else:
        shown = [part._replace(figure=None) for part in parts] if form == "md" else parts
        print(report_text(form, TITLE, summary, about, shown, command), end="")
    return analysis


def print_tables(
    folders: Sequence[Path],
    to: Path | None = None,
    split: str = "val",
    baseline: str | None = None,
    samples: int = 10_000,
    seed: int = 0,
    trust: Sequence[str] = (),
    block: int | None = None,
) -> list[Section]:
    """Analyse sweeps of the same arms on several datasets as one; see `print_table`.

    Raises:
        FileNotFoundError: a folder holds no sweep.
        ValueError: as `print_table`, or a folder is given twice, or the sweeps have fewer than two
            arms in common.
    """
    to = _checked(to, samples, seed)
    places = [folder.expanduser() for folder in folders]
    if len({place.resolve() for place in places}) < len(places):
        raise ValueError(
            f"{len(places)} sweeps are given, and one of them twice; give each dataset once"
        )
    sweeps = [read_sweep(place, split, check_trust(trust)) for place in places]
    return print_datasets(places, sweeps, baseline, Sampling(samples, seed, block), to)


def _checked(to: Path | None, samples: int, seed: int) -> Path | None:
    """Check the options of a table, and return its folder as an absolute path."""
    if to is not None:
        to = to.expanduser().absolute()
        refuse_filled(to, "choose another folder with --to")
        refuse_unwritable(to, "--to")
    if samples < 100:
        raise ValueError(f"--samples is {samples}; set it to 100 or more to estimate intervals")
    if seed < 0:
        raise ValueError(f"--seed is {seed}; it must be 0 or more, as in --seed 0")
    return to


def _drawn(sweep: SweepRuns, base: Arm, image: str, drawing: bool, trust: Sequence[str]) -> Section:
    if not drawing:
        raise ValueError(
            f"--image {image} is drawn into a report; add --to FOLDER or --format html"
        )
    # Imported late: it loads networks, which the table alone does not need.
    from gald.sweep.table.one_image import one_image

    return one_image(sweep, base, image, trust)


def _measure(sweep: SweepRuns, trust: Sequence[str]) -> None:
    """Add latency and memory to the results of all runs, measured once per arm."""
    # Imported late: it builds networks, which the table alone does not need.
    from gald.sweep.cell_cost import evaluation_costs

    console = Console(markup=False, emoji=False, stderr=True)
    for arm in track(sweep.arms, "measuring networks", console=console, transient=True):
        runs = list(arm.runs.values())
        costs = evaluation_costs(runs[0].folder / "config.yaml", trust)
        for run in runs:
            run.results.update(costs)


def _show(summary: str, notes: Sequence[str], parts: Sequence[Section], to: Path | None) -> None:
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 400  # in a log, no number is cut
    console.print(summary, style="bold", soft_wrap=True, highlight=False)
    for note in filter(None, notes):
        console.print(note, soft_wrap=True, highlight=False)
    for part in parts:
        if not part.header or part.title == "Classes":
            continue
        console.print(screen_table(part, part.header))
        if part.title == "Main effects":
            console.print(part.words, highlight=False)
    if to is not None:
        console.print(f"report: {to / 'report.html'}", soft_wrap=True)


def _latex(sweep: SweepRuns, parts: Sequence[Section]) -> str:
    """Return one LaTeX table of all arms with their scores, differences and costs."""
    arms = next(part for part in parts if part.title == "Arms")
    scores = next(part for part in parts if part.title == "Scores and costs")
    more = {row[0]: list(row[2:]) for row in scores.rows}
    empty = [""] * (len(scores.header) - 2)
    rows = [[*row, *more.get(row[0], empty)] for row in arms.rows]
    caption = f"Sweep {sweep.name}, {sweep.split}. {arms.words}"
    return latex_table([*arms.header, *scores.header[2:]], rows, caption)
