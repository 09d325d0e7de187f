"""Benchmark of training steps: our network and mmsegmentation's, with the same backbone.

    make bench-step
    make bench-step ARGS="--markdown FILE"

A step is forward, cross-entropy at full size plus 0.4 times the auxiliary loss, backward and SGD
with momentum, on random pixels. The networks differ in their heads, so the benchmark compares
multiply-adds per second: torch's count divided by CPU time on one thread. The rows run in turn, and
the table has medians.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from peers import NoOperators
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import data  # benchmarks/data.py, for machine() and short()
from gald.config import compose
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision

CLASSES = 19
Step = Callable[[Tensor, Tensor], Tensor]


def ours(ga: str, dtype: torch.dtype | None) -> tuple[nn.Module, Step]:
    """Create our network: ResNet-18 at stride 8 with a GA and no LD, 128 channels."""
    overrides = [f"model/ga={ga}", "model/ld=none"]
    cfg = compose("train", [*overrides, "model.channels=128", "model.backbone.output_stride=8"])
    model = instantiate(cfg.model, num_classes=CLASSES).train()
    loss = DeepSupervision(CrossEntropy(), CrossEntropy(), 0.4)

    def step(image: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            return loss(model(image), mask)

    return model, step


def theirs(head: str) -> tuple[nn.Module, Step]:
    """Create mmsegmentation's network: ResNetV1c-18 at stride 8 with one of its heads."""
    sys.modules.setdefault("mmcv._ext", NoOperators("mmcv._ext"))
    from mmseg.models.backbones import ResNetV1c
    from mmseg.models.decode_heads import FCNHead, NLHead

    backbone = ResNetV1c(
        depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True
    )
    shared = {"in_channels": 512, "in_index": 3, "channels": 128, "num_classes": CLASSES}
    heads = {"fcn": FCNHead, "nonlocal": NLHead}
    main = heads[head](**shared)
    aux = FCNHead(**(shared | {"in_channels": 256, "in_index": 2, "channels": 64, "num_convs": 1}))
    model = nn.ModuleList([backbone, main, aux]).train()

    def step(image: Tensor, mask: Tensor) -> Tensor:
        maps = backbone(image.float() / 255)
        losses = (_cross_entropy(part(maps), mask) for part in (main, aux))
        return next(losses) + 0.4 * next(losses)

    return model, step


def _cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    logits = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, mask.long(), ignore_index=255)


def main() -> None:
    """Measure all rows, print a table and, with --markdown, write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: dict[str, tuple[nn.Module, Step]] = {
        "ours, none": ours("none", None),
        "ours, nonlocal": ours("nonlocal", None),
        "ours, nonlocal, bf16": ours("nonlocal", torch.bfloat16),
    }
    for head in ("fcn", "nonlocal"):
        try:
            rows[f"mmsegmentation, {head}"] = theirs(head)
        except ImportError as error:
            print(f"mmsegmentation, {head} is skipped: {error}")
    image = torch.randint(0, 256, (args.batch, 3, *args.size), dtype=torch.uint8)
    mask = torch.randint(0, CLASSES, (args.batch, *args.size), dtype=torch.uint8)
    runs = {name: _training(*row) for name, row in rows.items()}
    gmacs = {}
    for name, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run(image, mask)
        gmacs[name] = counter.get_total_flops() / 2e9
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(args.rounds), "rounds", transient=True):
        for name in random.sample(list(runs), len(runs)):
            start = time.process_time()
            runs[name](image, mask)
            seconds[name].append(time.process_time() - start)
    note = f"{data.machine()}; batch {args.batch} of {args.size[0]}x{args.size[1]}, "
    note += f"{args.rounds} rounds, one thread."
    head = ["training step", "s", "GMACs", "GMACs/s"]
    lines = []
    for name, values in seconds.items():
        median = statistics.median(values)
        numbers = (median, gmacs[name], gmacs[name] / median)
        lines.append([name, *(data.short(number) for number in numbers)])
    table = Table(*head)
    for line in lines:
        table.add_row(*line)
    Console(width=max(124, Console().width)).print(note, table, sep="\n")
    if args.markdown:
        rule = ["---", "---:", "---:", "---:"]
        text = [note, "", *("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
        args.markdown.write_text("\n".join([*text, ""]))


def _training(model: nn.Module, step: Step) -> Callable[[Tensor, Tensor], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def run(image: Tensor, mask: Tensor) -> None:
        optimizer.zero_grad()
        step(image, mask).backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
