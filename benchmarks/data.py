"""Benchmark of data loading: images per second and core, compared with other libraries.

    make bench
    make bench ARGS="--camvid FOLDER --markdown FILE"

Each row turns one image into a training crop: random scale 0.5 to 2, crop padded with void, flip,
and brightness, contrast and saturation by up to 0.3. The result is a pair of uint8 tensors
(3, h, w) and (h, w), unless the name of the row states otherwise. The name also states what a row
omits or adds.

The benchmark measures CPU time of the process on one thread, with all files in the page cache. The
rows run in turn in one process, in a new random order every round; ratios are ratios of medians
over the rounds. Before a row is timed, a check confirms that it returns crops with train ids.
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

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import accesses the network

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

# stored label -> train id, as in Cityscapes: 34 stored labels, 19 of them classes
CLASSES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_MAP = {label: VOID for label in range(34)} | {c: i for i, c in enumerate(CLASSES)}
PACKAGES = (
    *("numpy", "opencv-python-headless", "kornia-rs", "torch", "torchvision"),
    *("albumentations", "mmsegmentation", "mmcv-lite", "mmengine"),
)


# Base rows of the ratios.
MMSEG, ALBU, DECODER = "mmsegmentation, png", "albumentations, memory", "bound: decode whole files"


class Workload(NamedTuple):
    """Image size and crop size of one benchmark table."""

    title: str
    size: tuple[int, int]
    crop: tuple[int, int]
    mosaic: bool


WORKLOADS = (
    Workload("2048x1024, crop 769x769", (1024, 2048), (769, 769), mosaic=True),
    Workload("480x360, crop 384x288", (360, 480), (288, 384), mosaic=False),
)


class Pairs(SegmentationDataset):
    """Dataset of the images and labels that `draw` wrote."""

    title = "benchmark images"
    url = ""
    class_names = tuple(map(str, CLASSES))
    palette = tuple((i, i, i) for i in range(len(CLASSES)))
    label_map = LABEL_MAP
    splits = ("train",)

    def list_samples(self, split: str) -> list[Sample]:
        """List the pairs of image and label files."""
        images = sorted(self.root.glob("*_image.png"))
        return [Sample(p.stem, p, Path(str(p).replace("_image", "_labelIds"))) for p in images]


def draw(workload: Workload, camvid: Path | None, count: int, folder: Path) -> str:
    """Write images as RGB png, labelIds as 8-bit png, and labelTrainIds png for mmsegmentation."""
    frames = _frames(workload, camvid)
    noise = np.random.default_rng(0)
    for i in range(count):
        if workload.mosaic:  # 2x3 frames of 480x360 or 2x4 of 512x512 have the shape of 2048x1024
            grid = [[next(frames) for _ in range(3 if camvid else 4)] for _ in range(2)]
            image, labels = (
                cv2.vconcat([cv2.hconcat([cell[split] for cell in row]) for row in grid])
                for split in (0, 1)
            )
            image = cv2.resize(image, workload.size[::-1], interpolation=cv2.INTER_CUBIC)
            labels = cv2.resize(labels, workload.size[::-1], interpolation=cv2.INTER_NEAREST)
        else:
            image, labels = next(frames)
        if workload.mosaic or not camvid:  # upscaled or drawn images are smoother than photos
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
    dataset = CamVid(camvid) if camvid else SyntheticStreets(size=size)
    ids = np.zeros(256, np.uint8)
    ids[: len(dataset.class_names)] = CLASSES[: len(dataset.class_names)]
    for i in itertools.cycle(random.Random(0).sample(range(len(dataset)), len(dataset))):
        image, mask = dataset[i]["image"], dataset[i]["mask"]
        yield np.ascontiguousarray(image.permute(1, 2, 0).numpy()), cv2.LUT(mask.numpy(), ids)


def ours(dataset: Pairs, crop: tuple[int, int], cache_dir: str) -> Rows:
    """Return rows of our loader: from files, from its disk cache and from memory."""
    transform = TrainTransform(crop, SCALE, flip=0.5, color_jitter=JITTER)
    epochs = itertools.count()

    def make_row(source: BaseDataset) -> Row:
        def row(i: int) -> tuple[Any, Any]:
            image, labels, lut = source.open(i)
            image, mask = transform(image, labels, (0, next(epochs), i), lut=lut)
            item = source.item(i, image, mask)
            return item["image"], item["mask"]

        return row

    return {
        "ours, png": make_row(dataset),
        "ours, cache": make_row(cached(dataset, "decoded", cache_dir)),
        "ours, memory": make_row(cached(dataset, "ram", cache_dir)),
    }


def bounds(dataset: Pairs, crop: tuple[int, int]) -> Rows:
    """Return upper bounds for any loader: only decoding, and only copying a crop from memory."""
    image, labels, _ = dataset.pixels(0)
    height, width = (min(pair) for pair in zip(crop, labels.shape, strict=True))

    size = labels.shape

    def decode(i: int) -> None:
        decode_image_png_u8(dataset.samples[i].image.read_bytes(), size, "rgb")
        decode_image_png_u8(dataset.samples[i].mask.read_bytes(), size, "mono")

    def decode_cv2(i: int) -> None:
        cv2.imread(str(dataset.samples[i].image))
        cv2.imread(str(dataset.samples[i].mask), cv2.IMREAD_UNCHANGED)

    def copy(i: int) -> None:
        np.copy(image[:height, :width])
        np.copy(labels[:height, :width])

    return {
        DECODER: decode,
        "bound: cv2.imread": decode_cv2,
        "bound: copy of a crop": copy,
    }


def check(name: str, row: Row, crop: tuple[int, int], count: int) -> None:
    """Raise RuntimeError if a row does not return crops and train ids."""
    ids = set()
    for i in range(count):
        output = row(i)
        if output is None:
            return
        image, mask = (np.asarray(part) for part in output)
        if image.shape != (3, *crop) or mask.shape != crop or image.std() == 0:
            raise RuntimeError(f"{name} returns {image.shape} and {mask.shape}; expected {crop}")
        ids |= set(np.unique(mask).tolist())
    if not ids <= {*range(len(CLASSES)), VOID} or len(ids) < 5:
        raise RuntimeError(f"{name} returns the labels {sorted(ids)}; expected train ids")


def measure(rows: Rows, count: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Measure images per second of CPU time for every row and round."""

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
    """Return how many times faster a row is than the base row."""
    if base not in rates:
        return "-"
    return short(statistics.median(rates[name]) / statistics.median(rates[base])) + "x"


def cells(rates: dict[str, list[float]], missing: dict[str, str]) -> list[list[str]]:
    """Return the table lines: name, slowest, median and fastest round, and the ratios."""
    lines = []
    for name, row in rates.items():
        numbers = [short(value) for value in (min(row), statistics.median(row), max(row))]
        lines.append(
            [name, *numbers, *(ratio(rates, name, base) for base in (MMSEG, ALBU, DECODER))]
        )
    return lines + [[f"{name} is missing: {why}", *"------"] for name, why in missing.items()]


def summary(rates: dict[str, list[float]]) -> list[str]:
    """Summarise the ratios in sentences, and separate the effect of the cache."""
    png, cache, memory = "ours, png", "ours, cache", "ours, memory"
    mmseg_memory = "mmsegmentation, memory, any crop, uint8"
    lines = [f"From png, ours has {ratio(rates, png, DECODER)} the rate of decoding whole files."]
    if MMSEG in rates:
        lines += [
            f"Speed-up over mmsegmentation from png: {ratio(rates, cache, MMSEG)} with our cache. "
            f"The cache contributes {ratio(rates, cache, png)} (over ours from png), the rest "
            f"{ratio(rates, png, MMSEG)} (ours from png).",
            f"Speed-up over mmsegmentation from memory, without any decoding: "
            f"{ratio(rates, cache, mmseg_memory)} with our cache, "
            f"{ratio(rates, memory, mmseg_memory)} from memory.",
        ]
    if ALBU in rates:
        lines.append(
            f"Speed-up over albumentations from memory, without any decoding: "
            f"{ratio(rates, cache, ALBU)} with our cache, {ratio(rates, memory, ALBU)} from memory."
        )
    return lines


def short(value: float) -> str:
    """Format a number with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def roofline() -> dict[str, float]:
    """Return GFLOP/s of a matrix product of 1024 in fp32 and bf16, the best of three."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.rand(1024, 1024).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(3):
            start = time.process_time()
            a @ b
            seconds.append(time.process_time() - start)
        rates[name] = 2 * 1024**3 / min(seconds) / 1e9
    return rates


def that_this_cpu_can(rows: dict[str, Any], rates: dict[str, float]) -> dict[str, Any]:
    """Leave out the rows in bf16 on a CPU without instructions for it, which is 80 times slower."""
    if rates["bf16"] > rates["fp32"] / 4:
        return rows
    print("rows in bf16 are skipped, because this CPU has no instructions for it")
    return {name: row for name, row in rows.items() if not name.endswith("bf16")}


def machine() -> str:
    """Describe processor, package versions and commit."""
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
    workload: Workload, dataset: Pairs, rounds: int, seconds: float, cache_dir: str
) -> tuple[list[list[str]], list[str]]:
    """Check and measure all rows of a workload; return the table lines and the summary."""
    rows, missing = ours(dataset, workload.crop, cache_dir), {}
    for name, row in rows.items():
        check(name, row, workload.crop, len(dataset))
    for peer in PEERS:
        try:
            theirs = peer(dataset, workload.crop)
            for name, row in theirs.items():
                check(name, row, workload.crop, len(dataset))
            rows |= theirs
        except Exception as error:  # a peer that fails must not stop the others
            missing[peer.__name__] = f"{type(error).__name__}: {error}".splitlines()[0]
    rows |= bounds(dataset, workload.crop)
    rates = measure(rows, len(dataset), rounds, seconds)
    return cells(rates, missing), summary(rates)


def main() -> None:
    """Measure all workloads, print the tables and, with --markdown, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds per row and round")
    parser.add_argument("--scenes", type=int, default=6, help="number of images")
    parser.add_argument(
        "--camvid", type=Path, help="folder of CamVid; without it, synthetic streets"
    )
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    console = Console(width=max(130, Console().width))  # wide enough in a log file too
    note = f"{machine()}; {args.rounds} rounds."
    console.print(note)
    text = [note, ""]
    head = ["images/s per core", "min", "median", "max"]
    head += ["vs. mmseg., png", "vs. albu., memory", "vs. decoding"]
    rule = ["---", *["---:"] * (len(head) - 1)]
    for workload in WORKLOADS:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache_dir:
            description = draw(workload, args.camvid, args.scenes, Path(folder))
            lines, sentences = compare(
                workload, Pairs(folder), args.rounds, args.seconds, cache_dir
            )
        table = Table(head[0], title=f"{workload.title}: {description}", title_justify="left")
        for name in head[1:]:
            table.add_column(name, justify="right")
        for line in lines:
            table.add_row(*line)
        console.print(table, *sentences, sep="\n")
        text += [f"### {workload.title}", "", description, ""]
        text += ["| " + " | ".join(line) + " |" for line in (head, rule, *lines)]
        text += ["", *(f"- {sentence}" for sentence in sentences), ""]
    if args.markdown:
        args.markdown.write_text("\n".join(text))


if __name__ == "__main__":
    main()
