"""`gald compare RUN_A RUN_B`: differences between two evaluations, with bootstrap intervals."""

import json
import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gald.comparison.bootstrap import Difference, estimated
from gald.comparison.differences import Differences, differences, influence
from gald.comparison.names import run_names
from gald.comparison.report import Section, screen_table, write_report
from gald.comparison.runs import EvaluatedRun, groups_of, read_pair
from gald.comparison.sections import HEADLINE, Scope, conclusion, sections
from gald.comparison.training import chose_the_checkpoint, same_arm, upper_bound
from gald.comparison.units import Units
from gald.run.atomic import new_folder, refuse_filled
from gald.run.new_folders import refuse_unwritable
from gald.run.plain import RefusedError
from gald.run.provenance import commit, versions
from gald.run.slots import check_trust

ON_SCREEN = ("Means", "Classes")  # sections that are also printed
SHOWN = 3  # number of images on the contact sheet in favour of A, and of B


def compare(
    run_a: Path,
    run_b: Path,
    split: str | None = None,
    to: Path | None = None,
    samples: int = 10_000,
    seed: int = 0,
    trust: Sequence[str] = (),
    block: int | None = None,
    seed_sd: float | None = None,
    margin: float | None = None,
) -> dict[str, Any]:
    """Compare two evaluations image by image; print and write where B differs from A.

    With one training a side the verdict is about these two trainings, unless `seed_sd` states how
    much trainings of one arm differ. Below 30 images, or between two seeds of one arm, there is no
    verdict.

    The folder contains `report.html`, `report.md` with its figures, and `comparison.json`. It is
    written atomically.

    Args:
        run_a: folder with `results.json` and `images_<split>.npz`, or a name of the zoo.
        run_b: another such folder, evaluated on the same images.
        split: `val` or `test`; None selects the first split that both have.
        to: folder to write; it must be empty or not exist. None creates one in `runs/compare`.
        samples: number of times that the images are drawn.
        seed: seed of the draws.
        trust: packages of your own with classes that the two folders may name.
        block: images of a block that is drawn together, see `gald.comparison.units`; None draws
            whole groups if there are 10 or more, blocks of 20 images if there are fewer, and
            single images if they have no groups.
        seed_sd: standard deviation of mIoU between seeds, in points, as `gald table` prints it; it
            widens the interval of mIoU by the chance of two trainings.
        margin: mIoU difference in points that counts as none, for a test of equivalence.

    Returns:
        The content of `comparison.json`.

    Raises:
        FileNotFoundError: a folder has no results or no per-image counts.
        ValueError: the two cannot be compared, the folder `to` is not empty, or a file would call
            code that is neither of gald nor of a trusted package.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = (to or Path("runs/compare") / stamp).expanduser().absolute()
    refuse_filled(folder, "choose another folder with --to")
    if samples < 100:
        raise ValueError(f"--samples is {samples}; an interval needs at least --samples 100")
    if seed < 0:
        raise ValueError(f"--seed is {seed}; it must be 0 or more, as in --seed 0")
    for option, value in (("--seed-sd", seed_sd), ("--margin", margin)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{option} is {value:g}; it must be above 0, as in {option} 0.5")
    trust = check_trust(trust)
    split, (a, b) = read_pair(run_a, run_b, split, trust)
    refuse_unwritable(folder, "--to")

    names_of_images = a.images.names
    units = Units.of(names_of_images, groups_of([a, b]), block)
    rows = differences(a, b, units, samples, seed)
    if seed_sd is not None:
        rows[HEADLINE] = _widened(rows[HEADLINE], seed_sd / 100)
    scope = Scope(len(names_of_images), *same_arm(a, b), seed_sd, margin)
    first, second = run_names([a.folder, b.folder])
    names = first, second
    sentence = conclusion(rows[HEADLINE], scope, names)
    chosen_by = chose_the_checkpoint(a.results, split) or chose_the_checkpoint(b.results, split)
    bounds = [upper_bound(run.receipt, name) for run, name in zip((a, b), names, strict=True)]
    warnings = " ".join(filter(None, [chosen_by, *bounds]))
    images_with_class = (a.class_counts[:, 1] > 0).sum(0)
    images_of_class = dict(zip(a.class_names, images_with_class.tolist(), strict=True))
    parts = sections(rows, a.metrics, images_of_class, scope, names)
    influences = influence(a.class_counts, b.class_counts)
    images, without_sheet = _images(a, b, split, influences, names, trust)
    count = len(influences)
    about = (
        f"{first} is {a.folder}. {second} is {b.folder}. Both were evaluated on {count} images of "
        f"{split}. Differences are {second} minus {first}; blue is in favour of {second}, orange "
        f"of {first}. {warnings}".rstrip()
    )
    how = Section(
        "How to read this",
        f"{units.words} This was done {samples} times with replacement. Each time the counts "
        "drawn were summed and scored, with the same draws for both (paired bootstrap); the "
        "interval is Student's with the variance of these scores. A class without a true pixel "
        f"among the drawn images counts for neither network. {_about_seeds(seed_sd)}",
    )
    record = {
        "conclusion": sentence,
        "a": str(a.folder),
        "b": str(b.folder),
        "split": split,
        "images": count,
        "units": units.words,
        "groups": units.groups,
        "drawn_units": units.count,
        "same_arm": scope.same_arm,
        "seed_sd": seed_sd,
        "margin": margin,
        "samples": samples,
        "seed": seed,
        "scores": _plain(rows),
        "influence": dict(zip(a.images.names, influences.tolist(), strict=True)),
        "commit": commit(),
        **versions(),
    }
    words = ["gald", "compare", *map(str, (run_a, run_b)), "--split", split]
    words += ["--samples", str(samples), "--seed", str(seed)]
    for option, value in (("--block", block), ("--seed-sd", seed_sd), ("--margin", margin)):
        words += [] if value is None else [option, f"{value:g}"]
    title = f"Is {second} better than {first}?"
    with new_folder(folder) as scratch:
        write_report(scratch, title, sentence, about, [*parts, images, how], shlex.join(words))
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (scratch / "comparison.json").write_text(text + "\n", "utf-8", "backslashreplace")

    console = Console(markup=False, emoji=False)
    console.print(sentence, style="bold", soft_wrap=True, highlight=False)
    for line in (units.words, chosen_by, *bounds):
        if line:
            console.print(line, soft_wrap=True, highlight=False)
    for part in parts:
        if part.title in ON_SCREEN:
            columns = [name for name in part.header if name not in ("p", "p (Holm)", "images")]
            console.print(screen_table(part, columns))
    if without_sheet:
        console.print(without_sheet, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return record


def _images(
    a: EvaluatedRun,
    b: EvaluatedRun,
    split: str,
    influences: np.ndarray,
    names: tuple[str, str],
    trust: Sequence[str],
) -> tuple[Section, str]:
    """Section of the most influential images, and the reason if they cannot be drawn."""
    order = np.argsort(influences, kind="stable")
    for_b = [int(i) for i in order[::-1][:SHOWN] if influences[i] > 0]
    for_a = [int(i) for i in order[:SHOWN] if influences[i] < 0]
    chosen = [(a.images.names[i], f"{100 * influences[i]:+.3f}") for i in (*for_b, *for_a)]
    words = (
        "The points are the mIoU difference with the image minus the difference without it. "
        f"Above 0 the image favours {names[1]}, below 0 it favours {names[0]}."
    )
    section = Section("Most influential images", words, ("image", "points"), chosen)
    if not chosen:
        return section._replace(words="No image changes the difference.", header=()), ""
    from gald.comparison.sheet import contact_sheet  # imports torch

    try:
        changes = [(name, f"{name}\n{text}") for name, text in chosen]
        png = contact_sheet(a, b, split, changes, names, trust)
    except RefusedError:
        raise
    except (OSError, ValueError) as error:
        reason = f"The images are not shown: {' '.join(str(error).split())}."
        return section._replace(words=f"{words} {reason}"), reason
    return section._replace(figure=("images.png", png)), ""


def _widened(miou: Difference, deviation: float) -> Difference:
    """Add the chance of two trainings to the interval of a difference."""
    (images,) = miou.sources
    wider = estimated(miou.a, miou.difference, images, (2 * deviation**2, np.inf))
    return wider._replace(b=miou.b)


def _about_seeds(seed_sd: float | None) -> str:
    if seed_sd is None:
        return (
            "Trainings were not repeated: a network trained with another seed may differ by more "
            "than these intervals. --seed-sd adds a deviation between seeds, as gald table prints "
            "it, to the interval of mIoU."
        )
    return (
        f"The interval of mIoU, and no other, has the chance of two trainings added, with a "
        f"deviation between seeds of {seed_sd:g} points (--seed-sd)."
    )


def _plain(rows: Differences) -> dict[str, dict[str, float | None]]:
    return {
        key: {
            name: float(value) if math.isfinite(value) else None
            for name, value in row._asdict().items()
            if name != "sources"
        }
        for key, row in rows.items()
    }
