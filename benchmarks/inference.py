"""Benchmark of inference: time and memory from logits to labels, and memory of evaluations.

    make bench-inference
    make bench-inference ARGS="--markdown FILE"

The plain method resizes all logits to the image size, then takes the argmax. mmsegmentation 1.2.2
does the same, and resizes once more to the size of the file even if it is equal. All methods must
agree on every label before they are timed. Logits are normal noise, so neighbours differ as much as
possible. Time is CPU time of the process on one thread; the methods run in turn, and the table has
medians. Memory is the peak of live tensors above the logits (`gald.profiling.memory`). For whole
evaluations it is the peak resident set of a separate process, including network and torch.
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import data  # benchmarks/data.py, for machine() and short()
from gald.config import compose
from gald.inference import FullImage
from gald.profiling.memory import TensorMemoryTracker

# classes, size of the logits, size of the image, align_corners
CASES = (
    (19, (128, 256), (1024, 2048), False),
    (19, (97, 97), (769, 769), True),
    (150, (64, 64), (512, 512), False),
    (171, (128, 256), (1024, 2048), False),
)
EVALUATIONS = {
    "plain": [],
    "whole": ["inference=whole"],
    "slide": ["inference=slide"],
    "multi_scale_slide, scales 0.5 and 1.75, flip": [
        *("inference=multi_scale_slide", "inference.scales=[0.5,1.75]"),
    ],
}
CLASSES, SIZE = 171, (1024, 2048)


class FixedLogits:
    """Stub network with fixed logits, so that only the work after the forward pass is measured."""

    def __init__(self, logits: Tensor) -> None:
        self.output = logits

    def logits(self, image: Tensor) -> Tensor:
        """Return the fixed logits for any image."""
        return self.output


class Cost(NamedTuple):
    """Milliseconds of CPU time, and peak bytes."""

    time: float
    memory: float


def methods(
    logits: Tensor, size: tuple[int, int], align_corners: bool
) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Return the compared methods; each returns labels, or labels and confidence."""

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    def plain_confidence() -> tuple[Tensor, ...]:
        best = up(logits).softmax(1).max(1)
        return best.indices, best.values

    model, image = FixedLogits(logits), torch.empty(1, 3, *size)
    whole = FullImage(align_corners)
    return {
        "ours": lambda: whole.predict(model, image)[:1],
        "plain": lambda: (up(logits).argmax(1),),
        "mmsegmentation": lambda: (up(up(logits))[0].argmax(0, keepdim=True),),
        "ours, confidence": lambda: tuple(whole.predict(model, image, confidence=True)),
        "plain, confidence": plain_confidence,
    }


@torch.no_grad()
def measure(
    classes: int, small: tuple[int, int], size: tuple[int, int], align_corners: bool, rounds: int
) -> dict[str, Cost]:
    """Measure the cost of all methods on one map."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, classes, *small)
    calls = methods(logits, size, align_corners)
    expected_labels = calls["plain"]()[0]
    expected_confidence = calls["plain, confidence"]()[1]
    memory = {}
    for name, call in calls.items():
        with TensorMemoryTracker([logits]) as live:
            output = call()
        assert torch.equal(output[0].long(), expected_labels), f"{name}: labels differ from plain"
        if len(output) > 1:
            torch.testing.assert_close(output[1], expected_confidence)
        memory[name] = float(live.peak)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.process_time()
            calls[name]()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: Cost(statistics.median(times[name]), memory[name]) for name in calls}


@torch.no_grad()
def evaluate(backbone: str, name: str) -> None:
    """Predict one image with a network of 171 classes and print the peak resident bytes."""
    torch.set_num_threads(1)
    overrides = [f"model/backbone={backbone}", "model.backbone.weights=null", *EVALUATIONS[name]]
    cfg = compose("train", overrides)
    model = instantiate(cfg.model, num_classes=CLASSES).eval()
    image = torch.randint(256, (1, 3, *SIZE), dtype=torch.uint8)
    if name == "plain":
        scores = F.interpolate(model.logits(image), size=SIZE, mode="bilinear")
        scores.argmax(1), scores.softmax(1).amax(1)
    else:
        instantiate(cfg.inference).predict(model, image, confidence=True)
    # Not ru_maxrss: a process inherits it from its parent.
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.split("VmHWM:")[1].split()[0]))  # Linux reports kibibytes


def resident(backbone: str, name: str) -> float:
    """Return the peak resident bytes of an evaluation in a separate process."""
    command = [sys.executable, __file__, "--backbone", backbone, "--evaluate", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print two tables and, with --markdown, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backbone", default="resnet18", help="backbone of the whole evaluations")
    parser.add_argument("--evaluate", choices=list(EVALUATIONS), help=argparse.SUPPRESS)
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    if args.evaluate:
        evaluate(args.backbone, args.evaluate)
        return
    torch.set_num_threads(1)
    console = Console(width=max(124, Console().width))  # wide enough in a log file too
    note = f"{data.machine()}; {args.rounds} rounds."
    console.print(note)
    lines = []
    for classes, small, size, align_corners in track(CASES, "labels", transient=True):
        costs = measure(classes, small, size, align_corners, args.rounds)
        for name, cost in costs.items():
            ours = costs["ours, confidence" if name.endswith("confidence") else "ours"]
            case = f"{classes} x {small[0]}x{small[1]} to {size[0]}x{size[1]}"
            ratios = [f"{data.short(a / b)}x" for a, b in zip(cost, ours, strict=True)]
            millis, mebis = data.short(cost.time), data.short(cost.memory / 2**20)
            lines.append([case, name, millis, ratios[0], mebis, ratios[1]])
    head = ["classes, map to image", "method", "ms", "vs. ours", "MiB", "vs. ours"]
    tables = [(head, lines)]
    lines = [
        [name, data.short(resident(args.backbone, name) / 1e9)]
        for name in track(EVALUATIONS, "evaluations", transient=True)
    ]
    tables.append(
        ([f"{args.backbone}, {CLASSES} classes at {SIZE[0]}x{SIZE[1]}", "resident GB"], lines)
    )
    text = [note]
    for head, lines in tables:
        table = Table(head[0])
        for name in head[1:]:
            table.add_column(name, justify="left" if name == "method" else "right")
        for line in lines:
            table.add_row(*line)
        console.print(table)
        rule = ["---", *["---:"] * (len(head) - 1)]
        text += ["", *("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
    if args.markdown:
        args.markdown.write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
