"""Benchmark of the loss: cross-entropy in bands of rows, and at full size.

    make bench-loss
    make bench-loss ARGS="--markdown FILE"

A row is the loss of low-resolution logits against a mask, with its backward pass to these logits.
"plain" resizes all logits to the mask and calls F.cross_entropy, as most projects do; its OHEM
sorts the losses of all pixels and averages those of the hard ones. Losses and gradients must be
equal up to rounding before anything is timed. Seconds are CPU time on one thread, medians of rows
that run in turn; MiB are live tensors above the logits and the mask.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import data  # benchmarks/data.py, for machine() and short()
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.ohem import OhemCrossEntropy
from gald.profiling.memory import TensorMemoryTracker

Loss = Callable[[Tensor, Tensor], Tensor]
THRESHOLD, KEPT = 0.7, 100_000
# Classes, images, mask and stride: CamVid, Cityscapes, ADE20K, COCO-Stuff.
CASES = [
    (11, 8, (288, 384), 16),
    (19, 2, (512, 512), 8),
    (19, 1, (768, 768), 8),
    (150, 2, (512, 512), 8),
    (171, 2, (512, 512), 8),
]


def plain(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean cross-entropy of resized logits."""
    full = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, mask.long(), ignore_index=255)


def plain_ohem(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the hard pixels of resized logits."""
    full = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
    losses = F.cross_entropy(full, mask.long(), ignore_index=255, reduction="none")[mask != 255]
    probability = torch.exp(-losses.detach())
    least = probability.sort().values[min(KEPT, len(probability)) - 1].item()
    return losses[probability <= max(THRESHOLD, least)].mean()


METHODS: dict[str, tuple[Loss, Loss]] = {
    "cross-entropy": (CrossEntropy(), plain),
    "OHEM": (OhemCrossEntropy(THRESHOLD, KEPT), plain_ohem),
}


def run(loss: Loss, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss, and its gradient with respect to the logits."""
    value = loss(logits, mask)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def main() -> None:
    """Measure all rows, print a table and, with --markdown, write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = []
    for classes, images, size, stride in track(CASES, "cases", transient=True):
        low = [side // stride for side in size]
        logits = (3 * torch.randn(images, classes, *low)).requires_grad_()
        mask = torch.randint(0, classes, (images, *size), dtype=torch.uint8)
        mask[:, : size[0] // 10] = 255
        for name, methods in METHODS.items():
            (value, gradient), (expected, its_gradient) = (run(m, logits, mask) for m in methods)
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
            error = float((gradient - its_gradient).abs().max() / its_gradient.abs().max())
            assert error < 2e-6, f"the gradients differ by {error:.1e}"
            seconds, memory = _measure(methods, logits, mask, args.rounds)
            case = f"{name}, {classes} x {low[0]}x{low[1]} to {images} x {size[0]}x{size[1]}"
            ratios = [seconds[1] / seconds[0], memory[1] / memory[0]]
            numbers = [*seconds, ratios[0], *memory, ratios[1]]
            texts = [data.short(number) for number in numbers]
            texts[2], texts[5] = texts[2] + "x", texts[5] + "x"
            lines.append([case, *texts, f"{error:.0e}"])
    note = f"{data.machine()}; {args.rounds} rounds, one thread."
    head = ["loss", "s", "plain", "ratio", "MiB", "plain", "ratio", "gradient differs by"]
    table = Table(*head)
    for line in lines:
        table.add_row(*line)
    Console(width=max(124, Console().width)).print(note, table, sep="\n")
    if args.markdown:
        rule = ["---", *["---:"] * (len(head) - 1)]
        text = [note, "", *("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
        args.markdown.write_text("\n".join([*text, ""]))


def _measure(
    methods: tuple[Loss, Loss], logits: Tensor, mask: Tensor, rounds: int
) -> tuple[list[float], list[float]]:
    """Return median seconds and peak MiB of each method."""
    memory = []
    for method in methods:
        with TensorMemoryTracker([logits, mask]) as tracker:
            run(method, logits, mask)
        memory.append(tracker.peak / 2**20)
    seconds: list[list[float]] = [[] for _ in methods]
    for _ in range(rounds):
        for index in random.sample(range(len(methods)), len(methods)):
            start = time.process_time()
            run(methods[index], logits, mask)
            seconds[index].append(time.process_time() - start)
    return [statistics.median(values) for values in seconds], memory


if __name__ == "__main__":
    main()
