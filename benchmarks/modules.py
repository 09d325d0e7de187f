"""Measures GA modules next to the formulations that papers print, over growing maps.

    make bench-modules
    make bench-modules ARGS="--markdown FILE"

Both sides have the same weights and must give the same output before they are timed. Time is CPU
time of the process on one thread; sides take turns, medians count. Memory is the peak of live
tensors above weights and input (`gald.memory`). Exponents are the slopes of log cost over log
positions, from 32x32 on.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import textbook
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import data  # the loader's benchmark beside this one: what names the machine
from gald.memory import LiveMemory
from gald.modules.ga.cc import CrissCross
from gald.modules.ga.cgnl import CGNL
from gald.modules.ga.nonlocal_block import NonLocal
from gald.modules.layers import AtStride
from gald.modules.ld.mask import Mask

SIZES = ((32, 32), (48, 48), (64, 64), (97, 97), (128, 256))
LARGEST_MATRIX = 97 * 97  # positions up to which the textbook's N x N matrix is made
Call = Callable[[Tensor], Tensor]


class GALDBlock(nn.Module):
    """The authors' block: CGNL at half resolution, then the published mask."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ga = AtStride(CGNL(channels), channels, padding=0, align_corners=True)
        self.ld = Mask(channels, padding=0, align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        """Aggregate, distribute, add the context once more."""
        context = self.ga(x)
        return self.ld(context, x) + context


class Pair(NamedTuple):
    """One module in our form and in another.

    Attributes:
        name: of the module.
        module: whose weights both use.
        ours: our form.
        other: the other form.
        channels_last: whether ours is given its input in that layout.
        sizes: maps to measure.
    """

    name: str
    module: nn.Module
    ours: Call
    other: Call
    channels_last: bool
    sizes: tuple[tuple[int, int], ...]


def pairs(channels: int) -> list[Pair]:
    """All comparisons at one width."""
    torch.manual_seed(0)
    attention, rows, compact = NonLocal(channels), CrissCross(channels), CGNL(channels)
    block = GALDBlock(channels)
    made = [
        Pair("nonlocal", attention, attention, _with(textbook.nonlocal_, attention), False, SIZES),
        Pair("cc", rows, rows, _with(textbook.criss_cross, rows), True, SIZES),
        Pair("cgnl", compact, compact, _with(textbook.cgnl, compact), False, SIZES),
        Pair(
            "GALD block, compiled",
            block,
            torch.compile(block, fullgraph=True, dynamic=False),
            block,
            True,
            ((48, 48), (97, 97)),
        ),
    ]
    for pair in made:
        pair.module.eval()
    return made


def _with(formulation: Callable[[nn.Module, Tensor], Tensor], module: nn.Module) -> Call:
    return lambda x: formulation(module, x)


class Cost(NamedTuple):
    """Milliseconds of CPU time forward, with backward, and peak bytes forward without gradients."""

    forward: float
    both: float
    memory: float


def measure(pair: Pair, size: tuple[int, int], batch: int, rounds: int) -> dict[str, Cost | None]:
    """Cost of both sides at one size; None where the textbook's matrix is too large."""
    torch.manual_seed(1)
    x = torch.randn(batch, _width(pair.module), *size)
    inputs = {"ours": x, "other": x}
    if pair.channels_last:
        inputs["ours"] = x.to(memory_format=torch.channels_last)
    calls = {"ours": pair.ours, "other": pair.other}
    kinds = ["forward", "both"]
    if pair.name == "nonlocal" and math.prod(size) > LARGEST_MATRIX:
        calls.pop("other")
        kinds.remove("both")  # minutes a pass
    with torch.no_grad():
        outputs = [call(inputs[side]) for side, call in calls.items()]
        for output in outputs[1:]:
            torch.testing.assert_close(output, outputs[0], rtol=1e-3, atol=1e-4)
    times: dict[str, dict[str, list[float]]] = {side: {"forward": [], "both": []} for side in calls}
    turns = [(side, kind) for side in calls for kind in kinds]
    for side, kind in turns:  # compiles, and warms up
        _time(calls[side], inputs[side], kind)
    for _ in range(rounds):
        for side, kind in random.sample(turns, len(turns)):
            times[side][kind].append(_time(calls[side], inputs[side], kind))
    found: dict[str, Cost | None] = {"ours": None, "other": None}
    for side, call in calls.items():
        eager = pair.module if side == "ours" else call
        found[side] = Cost(
            statistics.median(times[side]["forward"]),
            statistics.median(times[side]["both"] or [math.nan]),
            _memory(eager, inputs[side], pair.module),
        )
    return found


def _cell(value: float, unit: str = "") -> str:
    return "-" if math.isnan(value) else data.short(value) + unit


def _width(module: nn.Module) -> int:
    return next(p.shape[1] for p in module.parameters() if p.ndim == 4 and p.shape[1] > 1)


def _time(call: Call, x: Tensor, kind: str) -> float:
    if kind == "forward":
        with torch.no_grad():
            start = time.process_time()
            call(x)
            return 1e3 * (time.process_time() - start)
    x = x.detach().requires_grad_()
    start = time.process_time()
    call(x).sum().backward()
    return 1e3 * (time.process_time() - start)


def _memory(call: Call, x: Tensor, module: nn.Module) -> float:
    outside = [x, *module.parameters(), *module.buffers()]
    with torch.no_grad(), LiveMemory(outside) as memory:
        call(x)
    return float(memory.peak)


def exponent(sizes: list[tuple[int, int]], values: list[float]) -> float:
    """Slope of log cost over log positions."""
    positions = [math.log(math.prod(size)) for size in sizes]
    return float(np.polyfit(positions, [math.log(value) for value in values], 1)[0])


def main() -> None:
    """Measure all pairs, show a table, and write it as Markdown if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=max(124, Console().width))  # also in a log file
    note = f"{data.machine()}; {args.channels} channels, batch {args.batch}, {args.rounds} rounds."
    console.print(note)
    head = ["module", "map", "forward ms", "textbook", "ratio", "with backward ms", "textbook"]
    head += ["ratio", "forward MiB", "textbook", "ratio"]
    lines, growth = [], []
    for pair in pairs(args.channels):
        costs = {
            size: measure(pair, size, args.batch, args.rounds)
            for size in track(pair.sizes, pair.name, transient=True)
        }
        for size, cost in costs.items():
            line = [pair.name, f"{size[0]}x{size[1]}"]
            for index, scale in ((0, 1), (1, 1), (2, 2**20)):
                ours, other = (math.nan if c is None else c[index] / scale for c in cost.values())
                line += [_cell(ours), _cell(other), _cell(other / ours, "x")]
            lines.append(line)
        for side in ("ours", "other"):
            sizes = [size for size in costs if costs[size][side] is not None]
            kept = [costs[size][side] for size in sizes]
            time_, memory = (exponent(sizes, [c[i] for c in kept]) for i in (0, 2))
            who = "ours" if side == "ours" else "textbook"
            growth.append(
                f"{pair.name}, {who}: forward time grows with N^{time_:.2f}, memory with "
                f"N^{memory:.2f} ({sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]})"
            )
    table = Table(*head[:2])
    for name in head[2:]:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line)
    console.print(table, *growth, sep="\n")
    if args.markdown:
        rule = ["---", "---", *["---:"] * (len(head) - 2)]
        text = [note, "", *("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
        args.markdown.write_text("\n".join([*text, "", *(f"- {line}" for line in growth), ""]))


if __name__ == "__main__":
    main()
