"""Table of all GA and LD modules with their costs: the page docs/modules.md."""

import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gald.config import CONF_DIR
from gald.profiling.flops import NOT_COUNTED, MacCounter, count_params
from gald.profiling.memory import TensorMemoryTracker
from gald.profiling.restores import restores_x
from gald.run.atomic import atomic_file
from gald.run.building import build_own

CHANNELS = 512
SIDE = 97  # an image of 769 pixels at stride 8
CLASSES = 19
ROUNDS = 3
# An equation ends at the end of its sentence, or where its symbols are explained.
_ENDS = (";", r"\. [A-Z]", r"\.$")
_ENDS += tuple(f", {word} " for word in ("with", "where", "read", "each", "gamma", "softmax and"))
_ENDS += (", z a ", ", the mean ")
_FORMULA = re.compile(rf"\b(?:out(?:_i|\(p\))? =|x_i <-) .+?(?={'|'.join(_ENDS)})")
MAPS = ((256, 4, 193), (512, 8, SIDE), (1024, 8, SIDE), (2048, 8, SIDE))  # width, stride, side
TITLES = {"ga": "Global aggregation: `model/ga`", "ld": "Local distribution: `model/ld`"}
INTRODUCTION = """# Modules

Every option of `model/ga` and `model/ld`, with the cost of one module for one image
([how it is measured](#how-the-costs-are-measured)).
"""
MEASURED = f"""An LD *restores x* if the local feature x shows in its output where the context is
the same everywhere. Only such an LD can give back what a GA removed; the others scale, move or
filter the context.

## How the costs are measured

Parameters and GMACs are those of one module with its default arguments, in evaluation, for one
image, as computed on a CPU (there `danet` and `danet_position` also multiply padded keys; on a GPU
they do not). The feature map has {CHANNELS} channels and {SIDE}x{SIDE} positions, which corresponds
to 769x769 pixels at stride 8. Modules with more inputs get the maps of a dilated ResNet-50, or
scores of {CLASSES} classes. GMACs count convolutions, matrix products and attention. They do not
count {NOT_COUNTED}.
So a module with few GMACs is not always fast.

Time and memory are those of a forward pass without gradients, measured when the row was added or
changed, on one thread of an AMD EPYC. Time is the median of {ROUNDS} passes, memory is the peak of
live tensors above weights and inputs. Use them to compare rows; `gald profile` measures your own
network on your own machine.

This page is written by `make modules`: change the modules, not the page.
"""


def main(*, to: Path | None = None) -> None:
    """Write the page of all GAs and LDs, or print it.

    Args:
        to: page to update; only changed rows are measured
    """
    torch.set_num_threads(1)
    old_page = to.read_text(encoding="utf-8") if to is not None and to.is_file() else ""
    page = modules_table(measurements(old_page))
    if to is None:
        print(page, end="")
        return
    with atomic_file(to) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"{to}: {page.count('| [`')} modules")


def modules_table(known: Mapping[str, Sequence[str]] | None = None) -> str:
    """Build the Markdown page of all options of conf/model/ga and conf/model/ld.

    Args:
        known: time and memory of rows that are not measured again, see `measurements`; None
            measures nothing and leaves out these two columns.
    """
    numbers = ["params", "GMACs", *([] if known is None else ["ms", "MiB"])]
    text = [INTRODUCTION]
    for slot, title in TITLES.items():
        words = ["option", "what it is", "formula", "paper", "reads"]
        words += ["restores x"] if slot == "ld" else []
        head = words + numbers
        rule = [*["---"] * len(words), *["---:"] * len(numbers)]
        text += [f"## {title}\n", _line(head), _line(rule)]
        files = sorted((CONF_DIR / "model" / slot).glob("*.yaml"))
        text += [_line(_cells(slot, path, known)) for path in files]
        text += [""]
    return "\n".join([*text, MEASURED])


def measurements(page: str) -> dict[str, list[str]]:
    """Read time and memory of all rows of a page, keyed by option, parameters and GMACs."""
    result = {}
    for line in page.splitlines():
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        if line.startswith("| [`") and len(cells) >= 9:
            result[_identity(cells)] = cells[-2:]
    return result


def _identity(cells: Sequence[str]) -> str:
    return " ".join((cells[0], *cells[-4:-2]))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(slot: str, path: Path, known: Mapping[str, Sequence[str]] | None) -> list[str]:
    widths, strides, _ = zip(*MAPS, strict=True)
    config, module = _build(slot, path, CHANNELS, widths, strides)
    names, shapes = _inputs(slot, getattr(module, "reads", None))
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), MacCounter() as counter:
        module(*_random(shapes))
    cells = [
        f"[`{path.stem}`](../conf/model/{slot}/{path.name})",
        path.read_text().splitlines()[0].removeprefix("# ").rstrip("."),
        f"`{_formula(config)}`",
        ", ".join(_papers(config)) or "-",
        ", ".join(names),
        *([_restores(path)] if slot == "ld" else []),
        f"{count_params(module):,}",
        "< 0.001" if 0 < counter.macs < 1e6 else f"{counter.macs / 1e9:.3f}",
    ]
    if known is None:
        return cells
    old = known.get(" ".join((cells[0], *cells[-2:])))
    return cells + list(old or _measure(module, list(_random(shapes))))


def _build(
    slot: str, path: Path, channels: int, widths: Sequence[int], strides: Sequence[int]
) -> tuple[DictConfig, nn.Module]:
    """Return the config of an option and its module in evaluation mode."""
    whole = {"model": {"channels": channels, "align_corners": False, slot: OmegaConf.load(path)}}
    config = OmegaConf.create(whole).model[slot]
    maps = {"in_channels": widths, "in_strides": strides} if "_partial_" in config else {}
    return config, build_own(config, **maps, _partial_=False).eval()


def _restores(path: Path) -> str:
    """Say whether an LD can restore x, see `restores_x`; the weights are random, but fixed."""
    torch.manual_seed(0)
    _, ld = _build("ld", path, 16, (8, 16), (4, 8))
    more = {
        "maps": ((torch.randn(1, 8, 128, 128), torch.randn(1, 16, 64, 64)),),
        "truth": (torch.rand(1, 1, 64, 64),),
    }
    return "yes" if restores_x(ld, 16, *more.get(getattr(ld, "reads", None) or "", ())) else "no"


@torch.no_grad()
def _measure(module: nn.Module, inputs: list[Any]) -> list[str]:
    """Measure milliseconds and mebibytes of a forward pass."""
    flat = [t for given in inputs for t in (given if isinstance(given, tuple) else (given,))]
    with TensorMemoryTracker([*flat, *module.parameters(), *module.buffers()]) as memory:
        module(*inputs)
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        module(*inputs)
        times.append(1e3 * (time.process_time() - start))
    return [f"{statistics.median(times):.0f}", f"{memory.peak / 2**20:.0f}"]


def _inputs(slot: str, reads: str | None) -> tuple[list[str], list[Any]]:
    """Return names and shapes of a module's inputs."""
    feature = (1, CHANNELS, SIDE, SIDE)
    named: dict[str, Any] = {"x": feature} if slot == "ga" else {"context": feature, "x": feature}
    if reads == "aux":
        named["aux"] = (1, CLASSES, SIDE, SIDE)
    if reads == "maps":
        named["maps"] = [(1, width, side, side) for width, _, side in MAPS]
    if reads == "truth":
        named["truth"] = (1, 1, 8 * SIDE, 8 * SIDE)
    return list(named), list(named.values())


def _random(shapes: list[Any]) -> Iterator[Tensor | tuple[Tensor, ...]]:
    for shape in shapes:
        several = isinstance(shape, list)
        yield tuple(torch.rand(s) for s in shape) if several else torch.rand(shape)


def _formula(config: DictConfig) -> str:
    """Extract the equation of the result from the docstrings of the classes in a config.

    A docstring may have another one for an option that is off: "With residual=False ...: out ="...
    """
    matches = [_FORMULA.search(text) for text in _docstrings(config)]
    for key in (key for key, value in config.items() if value is False):
        parts = (text.partition(f"With {key}=False")[2] for text in _docstrings(config))
        matches += [_FORMULA.search(text) for text in parts]
    formulas = [match[0] for match in matches if match]
    return formulas[-1] if formulas else "out = x"


def _docstrings(config: DictConfig) -> list[str]:
    targets = re.findall(r"_target_: (gald\.\S+)", OmegaConf.to_yaml(config))
    return [" ".join((get_class(target).__doc__ or "").split()) for target in targets]


def _papers(config: DictConfig) -> list[str]:
    """Extract links to the papers cited by the classes in a config, without duplicates."""
    links: dict[str, str] = {}
    for docstring in _docstrings(config):
        cited = re.search(r"(?:Paper|After)\b.*?(?= (?:Reference|Deviations|Args):|$)", docstring)
        for title, link in re.findall(
            r'"([^"]+)",? ?(https?://[^\s,;)]+)', cited[0] if cited else ""
        ):
            links[link.rstrip(".")] = title
    return [f"[{title}]({link})" for link, title in links.items()]


if __name__ == "__main__":
    cyclopts.run(main)
