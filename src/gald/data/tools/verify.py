"""`gald data verify NAME`: reads every file of a dataset and lists all problems."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from gald.data.checks import (
    are_disjoint,
    mostly_hidden,
    same_picture,
    smoothed,
    too_few_classes,
    unlearnable,
)
from gald.data.datamodule import SegmentationDataModule
from gald.data.dataset import BaseDataset, SegmentationDataset
from gald.data.labels import UNKNOWN, VOID
from gald.data.pairs import note_rejects
from gald.data.reading.sample_error import SampleError
from gald.data.tools.class_report import SHARE_OF, percent
from gald.errors import to_sentence
from gald.install.extras import MissingExtra
from gald.progress import in_order
from gald.run.results import Results, write_results

_MAX_PROBLEMS = 10  # printed for each split
_MAX_WORDS = 6  # printed from the start and from the end of a long list


@dataclass
class Report:
    """Result of reading one split.

    Attributes:
        split: name of the split.
        problems: one sentence each.
        notes: further sentences, which are no problems.
        samples: number of images that have a mask.
        published_counts: published numbers of images; several if sources differ.
        label_map: stored label -> train id; empty if the masks store train ids.
        sizes: (width, height) of every readable sample.
        grey: number of images without colour.
        pixels: (256,) number of pixels per train id, 255 void, of the readable samples.
        pictures: hash of the pixels of each readable image -> a file or name with this image.
        dataset: what was read; None if it could not be listed.
        groups: names of the groups of images, see `gald.data.groups`.
        files: hash of all file names.
        labels: hash of all stored labels; empty unless all are readable.
    """

    split: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    published_counts: tuple[int, ...] = ()
    label_map: Mapping[int, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    grey: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    pictures: dict[str, str] = field(default_factory=dict)
    dataset: BaseDataset | None = None
    groups: set[str] = field(default_factory=set)
    files: str = ""
    labels: str = ""

    def facts(self) -> dict[str, int | str]:
        """Return the scalar results by their keys in the report."""
        sizes = sorted(self.sizes, key=lambda size: size[0] * size[1])
        extremes = [sizes[0], sizes[len(sizes) // 2], sizes[-1]] if sizes else [(0, 0)] * 3
        smallest, median, largest = (f"{width}x{height}" for width, height in extremes)
        return {
            "scenes": self.samples,
            "published": " or ".join(map(str, self.published_counts)),
            "problems": len(self.problems),
            "different sizes": len(set(sizes)),
            "smallest": smallest,
            "median": median,
            "largest": largest,
            "grey images": self.grey,
            "groups": len(self.groups) or "",
            "hash of names": self.files,
            "hash of labels": self.labels,
        }

    def shares(self, class_names: Sequence[str]) -> dict[str, float]:
        """Return the fraction of labelled pixels of each class, then of void among all pixels."""
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
    """Read all samples; print a table, the first problems of each split, and their number.

    Args:
        data: data module of the dataset.
        name: its name in `data=NAME`.
        split: split to read; None reads all splits that training uses, and others that exist.
        subset: accept a number of images that differs from the published one.
        output: a new file for the report as JSON.

    Returns:
        0 if there are no problems, 1 otherwise.

    Raises:
        FileNotFoundError: none of the splits exists.
        ValueError: the split is unknown, or the output exists.
    """
    if output is not None and output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    reports = _inspect_all(data, split)
    if fault := too_few_classes(data.class_names):
        reports[0].problems.append(fault)
    if not subset:
        for report in reports:
            report.problems += _check_count(report)
    console = Console(markup=False, emoji=False, highlight=False)
    if label_map := next((r.label_map for r in reports if r.label_map), None):
        console.print(_label_map(label_map, data.class_names), soft_wrap=True)
    console.print(_table(name, reports, data.class_names))
    for report in reports:
        absent = [name for name, n in zip(data.class_names, report.pixels, strict=False) if not n]
        if report.sizes and absent:
            console.print(f"never in {report.split}: {_short(absent)}", soft_wrap=True)
        for note in report.notes:
            console.print(f"note on {report.split}: {note}", soft_wrap=True)
        for problem in report.problems[:_MAX_PROBLEMS]:
            console.print(f"problem in {report.split}: {problem}", soft_wrap=True)
        if (rest := len(report.problems) - _MAX_PROBLEMS) > 0:
            console.print(f"and {rest} more problems in {report.split}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_results(output, _flat(reports, data.class_names))
        console.print(f"report: {output}", soft_wrap=True)
    count = sum(len(report.problems) for report in reports)
    problems = "1 problem" if count == 1 else f"{count or 'no'} problems"
    console.print(f"{name}: {problems} found", soft_wrap=True)
    return 1 if count else 0


def _inspect_all(data: SegmentationDataModule, split: str | None) -> list[Report]:
    """Read one split, or all that training uses and others that exist."""
    needed = [split] if split else ["train", "val", *(["test"] if data.has_test else [])]
    others = [] if split else [p for p in getattr(data.dataset_class, "splits", ()) if p != "test"]
    reports: dict[str, Report] = {}
    used: list[Report] = []
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
        if part in needed:
            used.append(report)
    if len(absent) == len(reports):
        raise absent[0]
    _compare_splits(used)
    return list(reports.values())


def inspect_split(data: SegmentationDataModule, split: str) -> Report:
    """Read every file of one split and collect all problems.

    Raises:
        FileNotFoundError: the split does not exist on disk.
        ValueError: the split is unknown.
    """
    with note_rejects() as rejects:
        try:
            dataset = data.make_dataset(split)
        except SampleError as error:  # nothing can be listed, e.g. because an archive is broken
            return Report(split, [*rejects, to_sentence(error)])
    report = Report(getattr(dataset, "split", split), [*rejects], samples=len(dataset))
    report.dataset = dataset
    report.problems += _check_names(dataset)
    try:
        report.groups = set(data.groups_in(dataset) or ())
    except ValueError as error:
        report.problems.append(to_sentence(error))
    if isinstance(dataset, SegmentationDataset):
        report.published_counts = _published_counts(dataset)
        report.label_map = dataset.label_map
        report.files = _hash_files(dataset)
    digests, hidden = [], []
    results = in_order(partial(_inspect, dataset), range(len(dataset)), f"read {report.split}")
    for index, result in enumerate(results):
        if isinstance(result, str):
            report.problems.append(result)
            continue
        report.sizes.append(result.size)
        report.grey += result.grey
        report.pixels += result.pixels
        report.pictures.setdefault(result.picture, _file(dataset, index))
        hidden.append(result.hidden * result.size[0] * result.size[1])
        if fault := smoothed(dataset, index, result.single):
            report.problems.append(fault)
        digests.append(f"{dataset.image_name(index)} {result.digest}")
    if len(digests) == len(dataset) and not rejects:
        report.labels = _hash(digests)
    if report.sizes:
        found = np.flatnonzero(report.pixels[: len(dataset.class_names)]).tolist()
        share = sum(hidden) / report.pixels.sum()
        report.problems += filter(
            None,
            (
                unlearnable(report.split, dataset, found),
                mostly_hidden(dataset, report.split, share, f"{len(hidden)} masks"),
            ),
        )
    return report


def _compare_splits(reports: Sequence[Report]) -> None:
    """Report pictures and groups that are in two splits.

    Pictures are a note where the owners chose the splits, and groups always: a place of train in
    test says that the scores are not those of another place.
    """
    for one, two in combinations(reports, 2):
        if one.dataset is None or two.dataset is None:
            continue
        if not are_disjoint(one.dataset, two.dataset):
            continue
        if groups := sorted(one.groups & two.groups):
            two.notes.append(
                f"{len(groups)} of its {len(two.groups)} groups are in {one.split} too, "
                f"first {groups[0]}"
            )
        shared = [
            same_picture(one.split, one.pictures[picture], two.split, image)
            for picture, image in two.pictures.items()
            if picture in one.pictures
        ]
        if one.published_counts and two.published_counts:
            two.notes += shared[:1] + [f"and {len(shared) - 1} more"] * (len(shared) > 1)
        else:
            two.problems += shared


def _file(dataset: BaseDataset, index: int) -> str:
    """Return the image file of a sample, or its name if it has none."""
    if isinstance(dataset, SegmentationDataset):
        return str(dataset.samples[index].image)
    return dataset.image_name(index)


class _Inspection(NamedTuple):
    """Contribution of one sample to the report."""

    size: tuple[int, int]
    grey: bool
    pixels: np.ndarray
    digest: str
    picture: str
    hidden: float
    single: float


def _inspect(dataset: BaseDataset, index: int) -> _Inspection | str:
    """Read one sample, or return its problem as a sentence."""
    try:
        image, labels, lut = dataset.pixels(index)
        stored = np.bincount(labels.ravel(), minlength=256)
        pixels = np.zeros(256, np.int64)
        np.add.at(pixels, lut, stored)
        if pixels[UNKNOWN]:
            return dataset.unknown_label(index)
        hidden = dataset.hidden(index)
    except MissingExtra:
        raise
    except SampleError as error:
        return str(error)
    except Exception as error:  # so that the other samples are still read
        return (
            f"{dataset.image_name(index)} cannot be read ({to_sentence(error)}); replace its files"
        )
    height, width = labels.shape
    thumbnail = image[::8, ::8]  # enough to recognise grey images
    grey = bool((thumbnail == thumbnail[..., :1]).all())
    size = f"{width}x{height} ".encode()
    digest = hashlib.sha256(size + labels.tobytes()).hexdigest()
    picture = hashlib.sha256(size)
    picture.update(np.ascontiguousarray(image).data)
    return _Inspection((width, height), grey, pixels, digest, picture.hexdigest(), *hidden)


def _check_count(report: Report) -> list[str]:
    """Compare the number of samples with the published one, if that is known."""
    if not report.published_counts or report.samples in report.published_counts:
        return []
    published = " or ".join(map(str, report.published_counts))
    return [
        f"found {report.samples} images with masks, {published} are published; restore the missing "
        "files, or add --subset to accept a subset"
    ]


def _check_names(dataset: BaseDataset) -> list[str]:
    """Find names of several samples: their predictions would overwrite each other."""
    names = Counter(dataset.image_name(index) for index in range(len(dataset)))
    return [
        f"{count} images have the name {name}; remove or rename all but one"
        for name, count in names.items()
        if count > 1
    ]


def _published_counts(dataset: SegmentationDataset) -> tuple[int, ...]:
    """Return the published numbers of images, summed over joined splits."""
    published = [dataset.published_counts.get(part, ()) for part in dataset.split.split("+")]
    return tuple(sorted({sum(counts) for counts in product(*published)}))


def _hash_files(dataset: SegmentationDataset) -> str:
    files = (os.path.relpath(file, dataset.root) for _, *pair in dataset.samples for file in pair)
    return _hash(Path(file).as_posix() for file in files)


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _label_map(labels: Mapping[int, int], class_names: Sequence[str]) -> str:
    """Format a label map in one line."""
    kept = [f"{k}->{class_names[v]}" for k, v in sorted(labels.items()) if v != VOID]
    void = [str(k) for k, v in sorted(labels.items()) if v == VOID]
    return f"label map: {_short(kept)}; void: {_short(void) or 'none'}"


def _short(words: list[str]) -> str:
    """Join words by commas; a long list loses its middle."""
    if len(words) > 2 * _MAX_WORDS:
        left_out = len(words) - 2 * _MAX_WORDS
        words = [*words[:_MAX_WORDS], f"({left_out} more)", *words[-_MAX_WORDS:]]
    return ", ".join(words)


def _table(name: str, reports: Sequence[Report], class_names: Sequence[str]) -> Table:
    """Build a table with one column per split: the scalar results, then the class frequencies."""
    table = Table(name, caption=SHARE_OF)
    for report in reports:
        table.add_column(report.split, justify="right")
    facts = [report.facts() for report in reports]
    for label in facts[0]:
        cells = [str(fact[label]) for fact in facts]
        if any(cells):
            # the key in the JSON report stays as it was in earlier versions
            table.add_row("images" if label == "scenes" else label, *cells)
    table.add_section()
    shares = [report.shares(class_names) for report in reports]
    for label in shares[0]:
        table.add_row(f"{label} %", *(percent(share[label]) for share in shares))
    return table


def _flat(reports: Sequence[Report], class_names: Sequence[str]) -> Results:
    """Convert the reports to flat keys, as in results.json."""
    flat: Results = {}
    for report in reports:
        flat |= {f"{report.split}/{label}": fact for label, fact in report.facts().items()}
        for label, share in report.shares(class_names).items():
            flat[f"{report.split}/share/{label}"] = share
        flat[f"{report.split}/problem sentences"] = report.problems
    return flat
