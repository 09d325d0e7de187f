"""`gald compare RUN_A RUN_B`: differences between two evaluations, with bootstrap intervals."""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gald.comparison.differences import Differences, differences, influence
from gald.comparison.report import Section, screen_table, write_report
from gald.comparison.runs import EvaluatedRun, read_pair
from gald.comparison.sections import conclusion, sections
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
) -> dict[str, Any]:
    """Compare two evaluations image by image; print and write where B differs from A.

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
    trust = check_trust(trust)
    split, (a, b) = read_pair(run_a, run_b, split, trust)
    refuse_unwritable(folder, "--to")

    rows = differences(a, b, samples, seed)
    sentence = conclusion(rows["miou"], len(a.images.names))
    images_with_class = (a.class_counts[:, 1] > 0).sum(0)
    images_of_class = dict(zip(a.class_names, images_with_class.tolist(), strict=True))
    parts = sections(rows, a.metrics, images_of_class, samples)
    influences = influence(a.class_counts, b.class_counts)
    images, without_sheet = _images(a, b, split, influences, trust)
    count = len(influences)
    about = f"A is {a.folder}. B is {b.folder}. Both were evaluated on {count} images of {split}."
    how = Section(
        "How to read this",
        f"Images were drawn {samples} times with replacement. Each time the counts of the drawn "
        "images were summed and scored, with the same draws for A and B (paired percentile "
        "bootstrap). With fewer than about 30 images such intervals are too narrow. Trainings were "
        "not repeated: a network trained with another seed may differ by more than these "
        "intervals, so train several seeds before you call a module better.",
    )
    record = {
        "conclusion": sentence,
        "a": str(a.folder),
        "b": str(b.folder),
        "split": split,
        "images": count,
        "samples": samples,
        "seed": seed,
        "scores": _plain(rows),
        "influence": dict(zip(a.images.names, influences.tolist(), strict=True)),
        "commit": commit(),
        **versions(),
    }
    _write(folder, sentence, about, [*parts, images, how], record)

    console = Console(markup=False, emoji=False)
    console.print(sentence, style="bold", soft_wrap=True, highlight=False)
    for part in parts:
        if part.title in ON_SCREEN:
            columns = [name for name in part.header if name not in ("p", "p (Holm)", "images")]
            console.print(screen_table(part, columns))
    if without_sheet:
        console.print(without_sheet, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return record


def _images(
    a: EvaluatedRun, b: EvaluatedRun, split: str, influences: np.ndarray, trust: Sequence[str]
) -> tuple[Section, str]:
    """Section of the most influential images, and the reason if they cannot be drawn."""
    order = np.argsort(influences, kind="stable")
    for_b = [int(i) for i in order[::-1][:SHOWN] if influences[i] > 0]
    for_a = [int(i) for i in order[:SHOWN] if influences[i] < 0]
    chosen = [(a.images.names[i], f"{100 * influences[i]:+.3f}") for i in (*for_b, *for_a)]
    words = (
        "The points are the mIoU difference with the image minus the difference without it. "
        "Above 0 the image favours B, below 0 it favours A."
    )
    section = Section("Most influential images", words, ("image", "points"), chosen)
    if not chosen:
        return section._replace(words="No image changes the difference.", header=()), ""
    from gald.comparison.sheet import contact_sheet  # imports torch

    try:
        changes = [(name, f"{name}\n{text}") for name, text in chosen]
        png = contact_sheet(a, b, split, changes, trust)
    except RefusedError:
        raise
    except (OSError, ValueError) as error:
        reason = f"The images are not shown: {' '.join(str(error).split())}."
        return section._replace(words=f"{words} {reason}"), reason
    return section._replace(figure=("images.png", png)), ""


def _plain(rows: Differences) -> dict[str, dict[str, float | None]]:
    return {
        key: {
            name: None if math.isnan(value) else float(value)
            for name, value in row._asdict().items()
        }
        for key, row in rows.items()
    }


def _write(
    folder: Path, sentence: str, about: str, parts: list[Section], record: dict[str, Any]
) -> None:
    with new_folder(folder) as scratch:
        write_report(scratch, "Where is B better than A?", sentence, about, parts)
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (scratch / "comparison.json").write_text(text + "\n", "utf-8", "backslashreplace")
