"""Measures images per second and core of the loader, next to what others make of the same files.

    make bench
    make bench ARGS="--camvid FOLDER --markdown FILE"

Each row turns one scene into a training crop: random scale 0.5 to 2, crop padded with void, flip,
and brightness, contrast and saturation by up to 0.3. It ends with uint8 tensors (3, h, w) and
(h, w), unless it says otherwise. What a row leaves out or adds stands in its name.

Counted is the CPU time of the process, on one thread, with all files in the page cache. The rows
take turns in one process, in another order every round; a ratio is one of medians over the rounds.
Every row is checked to give crops with train ids before it is timed.
"""

import argparse
import itertools
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the network

import cv2
import numpy as np
import torch
from kornia_rs.io import decode_image_png_u8
from peers import JITTER, PEERS, SCALE, Row, Rows
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gald.data.camvid import CamVid
from gald.data.dataset import BaseDataset, Sample, SegmentationDataset
from gald.data.labels import VOID, label_lut
from gald.data.loading.cache import cached
from gald.data.synthetic import SyntheticStreets
from gald.data.transforms import TrainTransform

# stored label -> train id, as in Cityscapes: 34 stored labels of which 19 are classes
CLASSES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_MAP = {label: VOID for label in range(34)} | {c: i for i, c in enumerate(CLASSES)}
PACKAGES = (
    *("numpy", "opencv-python-headless", "kornia-rs", "torch", "torchvision"),
    *("albumentations", "mmsegmentation", "mmcv-lite", "mmengine"),
)


# the rows that others are divided by
MMSEG, ALBU, DECODER = "mmsegmentation, png", "albumentations, memory", "bound: decode whole files"


class Workload(NamedTuple):
    """Scenes of one size and the crops they become."""

    title: str
    size: tuple[int, int]
    crop: tuple[int, int]
    mosaic: bool


WORKLOADS = (
    Workload("2048x1024, crop 769x769", (1024, 2048), (769, 769), mosaic=True),
    Workload("480x360, crop 384x288", (360, 480), (288, 384), mosaic=False),
)


class Pairs(SegmentationDataset):
    """The scenes that `draw` wrote."""

    title = "benchmark scenes"
    url = ""
    class_names = tuple(map(str, CLASSES))
    palette = tuple((i, i, i) for i in range(len(CLASSES)))
    label_map = LABEL_MAP
    splits = ("train",)

    def list_samples(self, split: str) -> list[Sample]:
        """List the pairs of files."""
        images = sorted(self.root.glob("*_image.png"))
        return [Sample(p.stem, p, Path(str(p).replace("_image", "_labelIds"))) for p in images]


def draw(workload: Workload, camvid: Path | None, count: int, folder: Path) -> str:
    """Write scenes as RGB png, 8-bit labelIds png and, for mmsegmentation, labelTrainIds png."""
    scenes = _frames(workload, camvid)
    noise = np.random.default_rng(0)
    for i in range(count):
        if workload.mosaic:  # 2x3 frames of 480x360 or 2x4 of 512x512 have the shape of 2048x1024
            grid = [[next(scenes) for _ in range(3 if camvid else 4)] for _ in range(2)]
            image, labels = (
                cv2.vconcat([cv2.hconcat([cell[split] for cell in row]) for row in grid])
                for split in (0, 1)
            )
            image = cv2.resize(image, workload.size[::-1], interpolation=cv2.INTER_CUBIC)
            labels = cv2.resize(labels, workload.size[::-1], interpolation=cv2.INTER_NEAREST)
        else:
            image, labels = next(scenes)
        if workload.mosaic or not camvid:  # what is upscaled or painted is smoother than a photo
            image = np.clip(image + noise.normal(0, 1.2, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i}_image.png"), image[..., ::-1])
        cv2.imwrite(str(folder / f"{i}_labelIds.png"), labels)
        train_ids = cv2.LUT(labels, label_lut(LABEL_MAP))
        cv2.imwrite(str(folder / f"{i}_labelTrainIds.png"), train_ids)
    sizes = [p.stat().st_size / 2**20 for p in sorted(folder.glob("*_image.png"))]
    kind = "mosaics of " if workload.mosaic else ""
    source = "CamVid frames" if camvid else "synthetic streets"
    return f"{count} {kind}{source}, png of {min(sizes):.2f} to {max(sizes):.2f} MiB"


def _frames(workload: Workload, camvid: Path | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = (512, 512) if workload.mosaic else workload.size
    scenes = CamVid(camvid) if camvid else SyntheticStreets(size=size)
    ids = np.zeros(256, np.uint8)
    ids[: len(scenes.class_names)] = CLASSES[: len(scenes.class_names)]
    for i in itertools.cycle(random.Random(0).sample(range(len(scenes)), len(scenes))):
        image, mask = scenes[i]["image"], scenes[i]["mask"]
        yield np.ascontiguousarray(image.permute(1, 2, 0).numpy()), cv2.LUT(mask.numpy(), ids)


def ours(scenes: Pairs, crop: tuple[int, int], cache_dir: str) -> Rows:
    """Our loader, from files, from its cache on disk, and from memory."""
    transform = TrainTransform(crop, SCALE, flip=0.5, color_jitter=JITTER)
    epochs = itertools.count()

    def loads(source: BaseDataset) -> Row:
        def row(i: int) -> tuple[Any, Any]:
            image, labels, table = source.open(i)
            image, mask = transform(image, labels, (0, next(epochs), i), table=table)
            item = source.item(i, image, mask)
            return item["image"], item["mask"]

        return row

    return {
        "ours, png": loads(scenes),
        "ours, cache": loads(cached(scenes, "decoded", cache_dir)),
        "ours, memory": loads(cached(scenes, "ram", cache_dir)),
    }


def bounds(scenes: Pairs, crop: tuple[int, int]) -> Rows:
    """What no loader can beat: decoding alone, and copying one crop out of memory."""
    image, labels, _ = scenes.pixels(0)
    height, width = (min(pair) for pair in zip(crop, labels.shape, strict=True))

    size = labels.shape

    def decode(i: int) -> None:
        decode_image_png_u8(scenes.samples[i].image.read_bytes(), size, "rgb")
        decode_image_png_u8(scenes.samples[i].mask.read_bytes(), size, "mono")

    def decode_cv2(i: int) -> None:
        cv2.imread(str(scenes.samples[i].image))
        cv2.imread(str(scenes.samples[i].mask), cv2.IMREAD_UNCHANGED)

    def copy(i: int) -> None:
        np.copy(image[:height, :width])
        np.copy(labels[:height, :width])

    return {
        DECODER: decode,
        "bound: cv2.imread": decode_cv2,
        "bound: copy of a crop": copy,
    }


def check(name: str, row: Row, crop: tuple[int, int], count: int) -> None:
    """Refuse to time a row that does not give crops and train ids."""
    seen = set()
    for i in range(count):
        made = row(i)
        if made is None:
            return
        image, mask = (np.asarray(split) for split in made)
        if image.shape != (3, *crop) or mask.shape != crop or image.std() == 0:
            raise RuntimeError(f"{name} gives {image.shape} and {mask.shape}; wanted {crop}")
        seen |= set(np.unique(mask).tolist())
    if not seen <= {*range(len(CLASSES)), VOID} or len(seen) < 5:
        raise RuntimeError(f"{name} gives the labels {sorted(seen)}; wanted train ids")


def measure(rows: Rows, count: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images per second of CPU time, for every row and round."""

    def rate(row: Row, calls: int) -> float:
        start = time.process_time()
        for i in range(calls):
            row(i % count)
        return calls / (time.process_time() - start)

    calls = {name: max(count, round(seconds * rate(row, count))) for name, row in rows.items()}
    rates = {name: [] for name in rows}
    for _ in track(range(rounds), "rounds", transient=True):
        for name in random.sample(list(rows), len(rows)):
            rates[name].append(rate(rows[name], calls[name]))
    return rates


def ratio(rates: dict[str, list[float]], name: str, base: str) -> str:
    """How much faster a row was than another."""
    if base not in rates:
        return "-"
    return short(statistics.median(rates[name]) / statistics.median(rates[base])) + "x"


def cells(rates: dict[str, list[float]], missing: dict[str, str]) -> list[list[str]]:
    """The lines of the table: name, slowest, median and fastest round, and the ratios."""
    lines = []
    for name, row in rates.items():
        numbers = [short(value) for value in (min(row), statistics.median(row), max(row))]
        lines.append(
            [name, *numbers, *(ratio(rates, name, base) for base in (MMSEG, ALBU, DECODER))]
        )
    return lines + [[f"{name} is missing: {why}", *"------"] for name, why in missing.items()]


def verdicts(rates: dict[str, list[float]]) -> list[str]:
    """What the table says about us, and which part of it is the cache."""
    png, cache, memory = "ours, png", "ours, cache", "ours, memory"
    mmseg_memory = "mmsegmentation, memory, any crop, uint8"
    lines = [f"From png: {ratio(rates, png, DECODER)} the rate of only decoding the whole files."]
    if MMSEG in rates:
        lines += [
            f"Over mmsegmentation from png: {ratio(rates, cache, MMSEG)} from our cache, of which "
            f"{ratio(rates, cache, png)} is the cache (over ours from png) and "
            f"{ratio(rates, png, MMSEG)} the rest (ours from png).",
            f"Over mmsegmentation from memory, nothing decoded in either: "
            f"{ratio(rates, cache, mmseg_memory)} from our cache, "
            f"{ratio(rates, memory, mmseg_memory)} from memory.",
        ]
    if ALBU in rates:
        lines.append(
            f"Over albumentations from memory, nothing decoded in either: "
            f"{ratio(rates, cache, ALBU)} from our cache, {ratio(rates, memory, ALBU)} from memory."
        )
    return lines


def short(value: float) -> str:
    """A number with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine() -> str:
    """Processor, packages and commit, for the record."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    model = models[0].split(": ")[1] if models else platform.processor()
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}; "
        f"commit {commit}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def compare(
    workload: Workload, scenes: Pairs, rounds: int, seconds: float, cache_dir: str
) -> tuple[list[list[str]], list[str]]:
    """Measure all rows of a workload that give what they should."""
    rows, missing = ours(scenes, workload.crop, cache_dir), {}
    for name, row in rows.items():
        check(name, row, workload.crop, len(scenes))
    for peer in PEERS:
        try:
            theirs = peer(scenes, workload.crop)
            for name, row in theirs.items():
                check(name, row, workload.crop, len(scenes))
            rows |= theirs
        except Exception as error:  # whatever ails a peer, the others are measured
            missing[peer.__name__] = f"{type(error).__name__}: {error}".splitlines()[0]
    rows |= bounds(scenes, workload.crop)
    rates = measure(rows, len(scenes), rounds, seconds)
    return cells(rates, missing), verdicts(rates)


def main() -> None:
    """Measure all workloads, show the tables, and write them as Markdown if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each row in each round")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--camvid", type=Path, help="folder of CamVid; else synthetic streets")
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    console = Console(width=max(130, Console().width))  # also in a log file
    note = f"{machine()}; {args.rounds} rounds."
    console.print(note)
    text = [note, ""]
    head = ["images/s per core", "min", "median", "max"]
    head += ["over mmseg., png", "over albu., memory", "over decoding"]
    rule = ["---", *["---:"] * (len(head) - 1)]
    for workload in WORKLOADS:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache_dir:
            about = draw(workload, args.camvid, args.scenes, Path(folder))
            lines, said = compare(workload, Pairs(folder), args.rounds, args.seconds, cache_dir)
        table = Table(head[0], title=f"{workload.title}: {about}", title_justify="left")
        for name in head[1:]:
            table.add_column(name, justify="right")
        for line in lines:
            table.add_row(*line)
        console.print(table, *said, sep="\n")
        text += [f"### {workload.title}", "", about, ""]
        text += ["| " + " | ".join(line) + " |" for line in (head, rule, *lines)]
        text += ["", *(f"- {sentence}" for sentence in said), ""]
    if args.markdown:
        args.markdown.write_text("\n".join(text))


if __name__ == "__main__":
    main()
