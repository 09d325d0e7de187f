"""`gald compare RUN_A RUN_B`: is one network better than another, where, and how sure is that?"""

import json
import math
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gald.cli import Arguments, fail
from gald.comparison.differences import Differences, differences, influence
from gald.comparison.report import Section, screen_table, write_report
from gald.comparison.runs import EvaluatedRun, read_pair
from gald.comparison.sections import conclusion, sections
from gald.run.atomic import new_folder, refuse_filled
from gald.run.provenance import commit, versions
from gald.run.results import SPLITS

ON_SCREEN = ("Means", "Classes")  # sections that are printed too
SHOWN = 3  # images of the contact sheet for each of A and B


def main() -> None:
    """Compare the two evaluations that the command line names."""
    parser = Arguments(
        "gald compare", description="where is B better than A, and how sure is that?"
    )
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="a folder gald eval has written")
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="another one, on the same images")
    parser.add_argument("--split", choices=SPLITS, help="default: the first that both hold")
    parser.add_argument("--to", type=Path, metavar="DIR", help="a new folder for the report")
    parser.add_argument("--samples", type=int, default=10_000, help="draws (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    flags = parser.parse_args(sys.argv[1:])
    try:
        compare(flags.run_a, flags.run_b, flags.split, flags.to, flags.samples, flags.seed)
    except KeyboardInterrupt:
        fail("interrupted, and nothing was written; --samples 1000 takes a tenth of the time")


def compare(
    run_a: Path,
    run_b: Path,
    split: str | None = None,
    to: Path | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two evaluations image by image; say, and write, where B differs from A.

    The folder holds `report.html`, `report.md` with its pictures, and `comparison.json`; it
    appears whole or not at all.

    Args:
        run_a: folder with `results.json` and `images_<split>.npz`.
        run_b: another, judged on the same images.
        split: `val` or `test`; None is the first that both hold.
        to: where to write; must be empty or not there. None is a new folder in `runs/compare`.
        samples: how often to draw the images.
        seed: what they are drawn from.

    Returns:
        What `comparison.json` holds.

    Raises:
        FileNotFoundError: a folder lacks what an evaluation leaves.
        ValueError: the two cannot be compared, or the folder holds something.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = (to or Path("runs/compare") / stamp).expanduser().absolute()
    refuse_filled(folder, "choose another folder with --to")
    if samples < 100:
        raise ValueError(f"--samples is {samples}; ends of an interval need at least 100")
    split, (a, b) = read_pair(run_a, run_b, split)

    found = differences(a, b, samples, seed)
    said = conclusion(found["miou"], len(a.images.names))
    occurs = (a.class_counts[:, 1] > 0).sum(0)
    images_of_class = dict(zip(a.class_names, occurs.tolist(), strict=True))
    parts = sections(found, a.metrics, images_of_class, samples)
    moved = influence(a.class_counts, b.class_counts)
    images, without_sheet = _images(a, b, split, moved)
    about = f"A is {a.folder}. B is {b.folder}. Both were judged on {len(moved)} images of {split}."
    how = Section(
        "How to read this",
        f"Images were drawn {samples} times with replacement, the same for A and B, and the scores "
        "of their summed pixels taken again (paired percentile bootstrap). Below some 30 images "
        "such intervals are too narrow. Trainings were not repeated: a network trained with "
        "another seed may differ by more than these intervals, so train several seeds before you "
        "call a module better.",
    )
    record = {
        "conclusion": said,
        "a": str(a.folder),
        "b": str(b.folder),
        "split": split,
        "images": len(moved),
        "samples": samples,
        "seed": seed,
        "scores": _plain(found),
        "influence": dict(zip(a.images.names, moved.tolist(), strict=True)),
        "commit": commit(),
        **versions(),
    }
    _write(folder, said, about, [*parts, images, how], record)

    console = Console()
    console.print(said, style="bold", soft_wrap=True, highlight=False)
    for part in parts:
        if part.title in ON_SCREEN:
            columns = [name for name in part.header if name not in ("p", "p (Holm)", "images")]
            console.print(screen_table(part, columns))
    if without_sheet:
        console.print(without_sheet, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return record


def _images(a: EvaluatedRun, b: EvaluatedRun, split: str, moved: np.ndarray) -> tuple[Section, str]:
    """The images that moved the mIoU difference most, and why they are not shown, if so."""
    order = np.argsort(moved, kind="stable")
    for_b = [int(i) for i in order[::-1][:SHOWN] if moved[i] > 0]
    for_a = [int(i) for i in order[:SHOWN] if moved[i] < 0]
    chosen = [(a.images.names[i], f"{100 * moved[i]:+.3f}") for i in (*for_b, *for_a)]
    words = (
        "With each image the mIoU difference is so many points larger than without it: above 0 it "
        "speaks for B, below 0 for A."
    )
    section = Section("Images that changed most", words, ("image", "points"), chosen)
    if not chosen:
        return section._replace(words="No image changes the difference.", header=()), ""
    from gald.comparison.sheet import contact_sheet  # brings torch

    try:
        png = contact_sheet(a, b, split, [(name, f"{name}\n{text}") for name, text in chosen])
    except (OSError, ValueError) as error:
        reason = f"The images are not shown: {' '.join(str(error).split())}."
        return section._replace(words=f"{words} {reason}"), reason
    return section._replace(picture=("images.png", png)), ""


def _plain(found: Differences) -> dict[str, dict[str, float | None]]:
    return {
        key: {
            name: None if math.isnan(value) else float(value)
            for name, value in row._asdict().items()
        }
        for key, row in found.items()
    }


def _write(
    folder: Path, said: str, about: str, parts: list[Section], record: dict[str, Any]
) -> None:
    with new_folder(folder) as whole:
        write_report(whole, "Where is B better than A?", said, about, parts)
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (whole / "comparison.json").write_text(text + "\n", encoding="utf-8")
