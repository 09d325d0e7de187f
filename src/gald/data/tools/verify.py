"""`gald data verify NAME`: reads every file of a dataset and lists what is wrong with it."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from gald.data.datamodule import SegmentationDataModule
from gald.data.dataset import BaseDataset, SegmentationDataset
from gald.data.labels import UNKNOWN, VOID
from gald.data.pairs import note_rejects
from gald.data.reading.files import SampleError
from gald.data.tools.class_report import SHARE_OF, percent
from gald.errors import to_sentence
from gald.progress import in_order
from gald.run.results import Results, write_results

_LISTED = 10  # problems printed for each split
_SHOWN = 6  # words at either end of a long list


@dataclass
class Report:
    """What became known about one split.

    Attributes:
        split: its name.
        problems: one sentence each.
        scenes: number of scenes that have their files.
        published_counts: how many it is published with, several where several are.
        label_map: stored label -> train id; empty where labels are train ids.
        sizes: (width, height) of every scene that could be read.
        grey: how many images have no colour.
        pixels: (256,) of each train id, 255 void, over what could be read.
        files: hash of the names of all files.
        labels: hash of all stored labels; empty unless all could be read.
    """

    split: str
    problems: list[str] = field(default_factory=list)
    dataset: int = 0
    published_counts: tuple[int, ...] = ()
    label_map: Mapping[int, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    grey: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    files: str = ""
    labels: str = ""

    def facts(self) -> dict[str, int | str]:
        """All that can be said in a word, by its label."""
        sizes = sorted(self.sizes, key=lambda size: size[0] * size[1])
        some = [sizes[0], sizes[len(sizes) // 2], sizes[-1]] if sizes else [(0, 0)] * 3
        smallest, median, largest = (f"{width}x{height}" for width, height in some)
        return {
            "scenes": self.dataset,
            "published": " or ".join(map(str, self.published_counts)),
            "problems": len(self.problems),
            "different sizes": len(set(sizes)),
            "smallest": smallest,
            "median": median,
            "largest": largest,
            "grey images": self.grey,
            "hash of names": self.files,
            "hash of labels": self.labels,
        }

    def shares(self, class_names: Sequence[str]) -> dict[str, float]:
        """Share of each class among the labelled pixels, then that of void among all."""
        pixels, void = self.pixels[: len(class_names)], self.pixels[VOID]
        labelled = max(1, int(pixels.sum()))
        shares = {name: int(n) / labelled for name, n in zip(class_names, pixels, strict=True)}
        return shares | {"void": int(void) / max(1, int(self.pixels.sum()))}


def verify(
    data: SegmentationDataModule,
    name: str,
    split: str | None = None,
    subset: bool = False,
    output: Path | None = None,
) -> int:
    """Read all scenes, print a table, the first problems of each split, and the count of the rest.

    Args:
        data: the dataset's module.
        name: its name in `data=NAME`.
        split: what to read; None is every split that training uses, and every other that is there.
        subset: whether other numbers of scenes than the published ones are as they should be.
        output: a new file for the report as JSON.

    Returns:
        0 when nothing is wrong, 1 otherwise.

    Raises:
        FileNotFoundError: there is none of the splits.
        ValueError: there is no such split, or the output exists.
    """
    if output is not None and output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    reports = _inspect_all(data, split)
    if not subset:
        for report in reports:
            report.problems += _wrong_count(report)
    console = Console(markup=False, highlight=False)
    if label_map := next((r.label_map for r in reports if r.label_map), None):
        console.print(_label_map(label_map, data.class_names), soft_wrap=True)
    console.print(_table(name, reports, data.class_names))
    for report in reports:
        absent = [name for name, n in zip(data.class_names, report.pixels, strict=False) if not n]
        if report.sizes and absent:
            console.print(f"never in {report.split}: {_short(absent)}", soft_wrap=True)
        for problem in report.problems[:_LISTED]:
            console.print(f"problem in {report.split}: {problem}", soft_wrap=True)
        if (rest := len(report.problems) - _LISTED) > 0:
            console.print(f"and {rest} more problems in {report.split}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_results(output, _flat(reports, data.class_names))
        console.print(f"report: {output}", soft_wrap=True)
    wrong = any(report.problems for report in reports)
    console.print(f"{name} is {'not ' if wrong else ''}as it should be")
    return 1 if wrong else 0


def _inspect_all(data: SegmentationDataModule, split: str | None) -> list[Report]:
    """Read one split, or those that training uses and the others that are there."""
    needed = [split] if split else ["train", "val", *(["test"] if data.has_test else [])]
    others = [] if split else [p for p in getattr(data.dataset_class, "splits", ()) if p != "test"]
    reports: dict[str, Report] = {}
    absent: list[FileNotFoundError] = []
    for part in dict.fromkeys([*needed, *others]):
        try:
            report = inspect_split(data, part)
        except FileNotFoundError as error:
            if part not in needed:
                continue
            absent.append(error)
            report = Report(part, [to_sentence(error)])
        reports[report.split] = report
    if len(absent) == len(reports):
        raise absent[0]
    return list(reports.values())


def inspect_split(data: SegmentationDataModule, split: str) -> Report:
    """Read one split to its end, whatever is wrong with it, and look at every pixel.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: there is no such split.
    """
    with note_rejects() as rejects:
        try:
            dataset = data.make_dataset(split)
        except SampleError as error:  # nothing to go on with, as a broken archive
            return Report(split, [*rejects, to_sentence(error)])
    report = Report(getattr(dataset, "split", split), [*rejects], len(dataset))
    report.problems += _wrong_names(dataset)
    if isinstance(dataset, SegmentationDataset):
        report.published_counts = _published_counts(dataset)
        report.label_map = dataset.label_map
        report.files = _hash_files(dataset)
    digests = []
    looks = in_order(partial(_look, dataset), range(len(dataset)), f"read {report.split}")
    for index, look in enumerate(looks):
        if isinstance(look, str):
            report.problems.append(look)
            continue
        report.sizes.append(look.size)
        report.grey += look.grey
        report.pixels += look.pixels
        digests.append(f"{dataset.image_name(index)} {look.digest}")
    if len(digests) == len(dataset) and not rejects:
        report.labels = _hash(digests)
    return report


class _Look(NamedTuple):
    """What one scene adds to the report."""

    size: tuple[int, int]
    grey: bool
    pixels: np.ndarray
    digest: str


def _look(dataset: BaseDataset, index: int) -> _Look | str:
    """Read one scene, or say in a sentence why that failed."""
    try:
        image, labels, table = dataset.pixels(index)
        stored = np.bincount(labels.ravel(), minlength=256)
        pixels = np.zeros(256, np.int64)
        np.add.at(pixels, table, stored)
        if pixels[UNKNOWN]:
            return dataset.unknown_label(index)
    except SampleError as error:
        return str(error)
    except Exception as error:  # one scene must not hide the others
        return (
            f"{dataset.image_name(index)} cannot be read ({to_sentence(error)}); replace its files"
        )
    height, width = labels.shape
    some = image[::8, ::8]  # enough to tell
    digest = hashlib.sha256(f"{width}x{height} ".encode() + labels.tobytes()).hexdigest()
    return _Look((width, height), bool((some == some[..., :1]).all()), pixels, digest)


def _wrong_count(report: Report) -> list[str]:
    """That scenes are missing or too many, if it is known how many there are."""
    if not report.published_counts or report.dataset in report.published_counts:
        return []
    published = " or ".join(map(str, report.published_counts))
    return [
        f"{report.dataset} scenes were found, {published} are published; restore what is missing, "
        "or say --subset if you mean it"
    ]


def _wrong_names(dataset: BaseDataset) -> list[str]:
    """Names that several scenes share; predictions are written under them."""
    names = Counter(dataset.image_name(index) for index in range(len(dataset)))
    return [
        f"{count} scenes are called {name}; remove or rename all but one"
        for name, count in names.items()
        if count > 1
    ]


def _published_counts(dataset: SegmentationDataset) -> tuple[int, ...]:
    """Numbers of scenes that the parts of a split are published with, added up."""
    published = [dataset.published_counts.get(part, ()) for part in dataset.split.split("+")]
    return tuple(sorted({sum(counts) for counts in product(*published)}))


def _hash_files(dataset: SegmentationDataset) -> str:
    files = (os.path.relpath(file, dataset.root) for _, *pair in dataset.samples for file in pair)
    return _hash(Path(file).as_posix() for file in files)


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _label_map(labels: Mapping[int, int], class_names: Sequence[str]) -> str:
    """A label map in one line."""
    kept = [f"{k}->{class_names[v]}" for k, v in sorted(labels.items()) if v != VOID]
    void = [str(k) for k, v in sorted(labels.items()) if v == VOID]
    return f"label map: {_short(kept)}; void: {_short(void) or 'none'}"


def _short(words: list[str]) -> str:
    """Join words, without the middle where they are many."""
    if len(words) > 2 * _SHOWN:
        words = [*words[:_SHOWN], f"({len(words) - 2 * _SHOWN} more)", *words[-_SHOWN:]]
    return ", ".join(words)


def _table(name: str, reports: Sequence[Report], class_names: Sequence[str]) -> Table:
    """One column a split: what was found, then the share of each class."""
    table = Table(name, caption=SHARE_OF)
    for report in reports:
        table.add_column(report.split, justify="right")
    facts = [report.facts() for report in reports]
    for label in facts[0]:
        cells = [str(fact[label]) for fact in facts]
        if any(cells):
            table.add_row(label, *cells)
    table.add_section()
    shares = [report.shares(class_names) for report in reports]
    for label in shares[0]:
        table.add_row(f"{label} %", *(percent(share[label]) for share in shares))
    return table


def _flat(reports: Sequence[Report], class_names: Sequence[str]) -> Results:
    """The reports under flat keys, as in results.json."""
    flat: Results = {}
    for report in reports:
        flat |= {f"{report.split}/{label}": fact for label, fact in report.facts().items()}
        for label, share in report.shares(class_names).items():
            flat[f"{report.split}/share/{label}"] = share
        flat[f"{report.split}/problem sentences"] = report.problems
    return flat
