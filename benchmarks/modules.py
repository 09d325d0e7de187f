"""Benchmark of GA modules, compared with textbook formulations and with other packages.

    make bench-modules
    make bench-modules ARGS="--markdown FILE"

A module and its textbook form have the same weights and must return the same output before they
are timed. A module of another package has the same widths and steps, but other weights. Time is CPU
time of the process on one thread; both sides run in turn, and the table has medians. Memory is the
peak of live tensors above weights and input (`gald.profiling.memory`). Exponents are slopes of log
cost over log positions, starting at 32x32.
"""

import argparse
import functools
import math
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import textbook
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import data  # benchmarks/data.py, for machine() and short()
from gald.model.ga.cc import CrissCross, rows_and_columns
from gald.model.ga.cgnl import CGNL
from gald.model.ga.nonlocal_block import NonLocal
from gald.model.layers import AtStride
from gald.model.ld.mask import Mask
from gald.profiling.memory import TensorMemoryTracker

SIZES = ((32, 32), (48, 48), (64, 64), (97, 97), (128, 256))
LARGEST_MATRIX = 97 * 97  # largest N for which the textbook form runs with its N x N matrix
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
    """A module in our form and in another form.

    Attributes:
        name: name of the module.
        other_name: name of the other form.
        modules: modules that hold the weights.
        ours: our form.
        other: the other form.
        channels: width of the input.
        channels_last: whether the input of ours is in channels_last layout.
        sizes: map sizes to measure.
        equal: whether both forms must return the same output.
    """

    name: str
    other_name: str
    modules: tuple[nn.Module, ...]
    ours: Call
    other: Call
    channels: int
    channels_last: bool
    sizes: tuple[tuple[int, int], ...]
    equal: bool = True


def pairs(channels: int) -> list[Pair]:
    """Return all comparisons with textbook forms at one width."""
    torch.manual_seed(0)
    attention, rows, compact = NonLocal(channels), CrissCross(channels), CGNL(channels)
    block = GALDBlock(channels)
    widths = rows.widths

    def rows_alone(x: Tensor) -> Tensor:
        q, k, v = x.permute(0, 2, 3, 1).split(widths, dim=3)
        return rows_and_columns(q, k, v, x.dtype).permute(0, 3, 1, 2)

    def textbook_rows_alone(x: Tensor) -> Tensor:
        return textbook.rows_and_columns(*x.split(widths, dim=1))

    comparisons = [
        _pair("nonlocal", attention, textbook.nonlocal_, channels, channels_last=False),
        _pair("cc", rows, textbook.criss_cross, channels, channels_last=True),
        Pair(
            "cc, one round without projections",
            "textbook",
            (),
            rows_alone,
            textbook_rows_alone,
            sum(widths),
            True,
            SIZES,
        ),
        _pair("cgnl", compact, textbook.cgnl, channels, channels_last=False),
        Pair(
            "GALD block, compiled",
            "textbook",
            (block,),
            torch.compile(block, fullgraph=True, dynamic=False),
            functools.partial(textbook.gald_block, block.ga, block.ld),
            channels,
            True,
            ((48, 48), (97, 97)),
        ),
    ]
    for module in (attention, rows, compact, block):
        module.eval()
    return comparisons


def _pair(
    name: str,
    module: nn.Module,
    formulation: Callable[[Any, Tensor], Tensor],
    channels: int,
    channels_last: bool,
) -> Pair:
    other = functools.partial(formulation, module)
    return Pair(name, "textbook", (module,), module, other, channels, channels_last, SIZES)


def peer_pairs(channels: int) -> list[Pair]:
    """Return all comparisons with other packages; empty if the packages are not installed."""
    try:
        import peer_modules

        peers = peer_modules.peer_modules(channels)
    except ImportError as error:
        print(f"other packages are skipped: {error}")
        return []
    sizes = ((32, 32), (97, 97))
    return [
        Pair(p.name, p.package, (p.ours, p.other), p.ours, p.other, channels, False, sizes, False)
        for p in peers
    ]


class Cost(NamedTuple):
    """CPU milliseconds forward and with backward, and peak bytes forward without gradients."""

    forward: float
    both: float
    memory: float


def measure(pair: Pair, size: tuple[int, int], batch: int, rounds: int) -> dict[str, Cost | None]:
    """Measure both forms at one size; None if the textbook's matrix is too large."""
    torch.manual_seed(1)
    x = torch.randn(batch, pair.channels, *size)
    inputs = {"ours": x, "other": x}
    if pair.channels_last:
        inputs["ours"] = x.to(memory_format=torch.channels_last)
    calls = {"ours": pair.ours, "other": pair.other}
    kinds = ["forward", "both"]
    if pair.name == "nonlocal" and pair.equal and math.prod(size) > LARGEST_MATRIX:
        calls.pop("other")
        kinds.remove("both")  # takes minutes per pass
    with torch.no_grad():
        outputs = [call(inputs[side]) for side, call in calls.items()]
        for output in outputs[1:] if pair.equal else ():
            torch.testing.assert_close(output, outputs[0], rtol=1e-3, atol=1e-4)
    times: dict[str, dict[str, list[float]]] = {side: {"forward": [], "both": []} for side in calls}
    turns = [(side, kind) for side in calls for kind in kinds]
    for side, kind in turns:  # compile and warm up
        _time(calls[side], inputs[side], kind)
    for _ in range(rounds):
        for side, kind in random.sample(turns, len(turns)):
            times[side][kind].append(_time(calls[side], inputs[side], kind))
    costs: dict[str, Cost | None] = {"ours": None, "other": None}
    for side, call in calls.items():
        compiled = isinstance(call, torch._dynamo.OptimizedModule)
        eager = pair.modules[0] if compiled else call
        costs[side] = Cost(
            statistics.median(times[side]["forward"]),
            statistics.median(times[side]["both"] or [math.nan]),
            _memory(eager, inputs[side], pair.modules),
        )
    return costs


def _cell(value: float, unit: str = "") -> str:
    return "-" if math.isnan(value) else data.short(value) + unit


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


def _memory(call: Call, x: Tensor, modules: tuple[nn.Module, ...]) -> float:
    outside = [x, *(t for m in modules for t in (*m.parameters(), *m.buffers()))]
    with torch.no_grad(), TensorMemoryTracker(outside) as memory:
        call(x)
    return float(memory.peak)


def exponent(sizes: list[tuple[int, int]], values: list[float]) -> float:
    """Return the slope of log cost over log positions."""
    positions = [math.log(math.prod(size)) for size in sizes]
    return float(np.polyfit(positions, [math.log(value) for value in values], 1)[0])


def main() -> None:
    """Measure all pairs, print a table and, with --markdown, write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=max(124, Console().width))  # wide enough in a log file too
    note = f"{data.machine()}; {args.channels} channels, batch {args.batch}, {args.rounds} rounds."
    console.print(note)
    head = ["module", "compared with", "map", "forward ms", "other", "ratio"]
    head += ["with backward ms", "other", "ratio", "forward MiB", "other", "ratio"]
    lines, growth = [], []
    for pair in [*pairs(args.channels), *peer_pairs(args.channels)]:
        costs = {
            size: measure(pair, size, args.batch, args.rounds)
            for size in track(pair.sizes, pair.name, transient=True)
        }
        for size, cost in costs.items():
            line = [pair.name, pair.other_name, f"{size[0]}x{size[1]}"]
            for index, scale in ((0, 1), (1, 1), (2, 2**20)):
                ours, other = (math.nan if c is None else c[index] / scale for c in cost.values())
                line += [_cell(ours), _cell(other), _cell(other / ours, "x")]
            lines.append(line)
        for side in (
            ("ours", "other") if len(pair.sizes) > 2 else ()
        ):  # a slope of two sizes means little
            sizes = [size for size in costs if costs[size][side] is not None]
            kept = [costs[size][side] for size in sizes]
            time_, memory = (exponent(sizes, [c[i] for c in kept]) for i in (0, 2))
            form = "ours" if side == "ours" else pair.other_name
            growth.append(
                f"{pair.name}, {form}: forward time grows with N^{time_:.2f}, memory with "
                f"N^{memory:.2f} ({sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]})"
            )
    table = Table(*head[:3])
    for name in head[3:]:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line)
    console.print(table, *growth, sep="\n")
    if args.markdown:
        rule = ["---"] * 3 + ["---:"] * (len(head) - 3)
        text = [note, "", *("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
        args.markdown.write_text("\n".join([*text, "", *(f"- {line}" for line in growth), ""]))


if __name__ == "__main__":
    main()
