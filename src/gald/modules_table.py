"""Write what there is to swap, and at what cost: python -m gald.modules_table > docs/modules.md."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gald.conf_dir import CONF_DIR
from gald.price import NOT_COUNTED, MacCounter, count_params

CHANNELS = 512
SIDE = 97  # an image of 769 pixels at stride 8
CLASSES = 19
MAPS = ((256, 4, 193), (512, 8, SIDE), (1024, 8, SIDE), (2048, 8, SIDE))  # width, stride, side
TITLES = {"ga": "Global aggregation: `model/ga`", "ld": "Local distribution: `model/ld`"}
INTRODUCTION = f"""# Modules

Written by `python -m gald.modules_table > docs/modules.md`; change the modules, not this file.

Parameters and GMACs of one module with its default arguments, in evaluation, for one image, as a
CPU computes it (`danet` and `danet_position` multiply padded keys there, but not on a GPU): a
feature of {CHANNELS} channels and {SIDE}x{SIDE} cells, which is 769x769 pixels at stride 8. Modules
that read more get the maps of a dilated ResNet-50, or scores of {CLASSES} classes. GMACs count
convolutions, matrix products and attention, and leave out
{NOT_COUNTED}.
So a small number does not mean a fast module: `gald profile` measures time and memory.
"""


def modules_table() -> str:
    """Every option of conf/model/ga and conf/model/ld as a table in Markdown."""
    text = [INTRODUCTION]
    for slot, title in TITLES.items():
        text += [f"## {title}\n", "| option | what it is | paper | reads | params | GMACs |"]
        text += ["|---|---|---|---|---:|---:|"]
        text += [_row(slot, path) for path in sorted((CONF_DIR / "model" / slot).glob("*.yaml"))]
        text += [""]
    return "\n".join(text)


def _row(slot: str, path: Path) -> str:
    whole = {"model": {"channels": CHANNELS, "align_corners": False, slot: OmegaConf.load(path)}}
    config = OmegaConf.create(whole).model[slot]
    widths, strides, _ = zip(*MAPS, strict=True)
    handed = {"in_channels": widths, "in_strides": strides} if "_partial_" in config else {}
    module: nn.Module = instantiate(config, **handed, _partial_=False)
    names, inputs = _inputs(slot, getattr(module, "reads", None))
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), MacCounter() as counter:
        module.eval()(*_zeros(inputs))
    cells = (
        f"[`{path.stem}`](../conf/model/{slot}/{path.name})",
        path.read_text().splitlines()[0].removeprefix("# ").rstrip("."),
        ", ".join(_papers(config)) or "-",
        ", ".join(names),
        f"{count_params(module):,}",
        "< 0.001" if 0 < counter.macs < 1e6 else f"{counter.macs / 1e9:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def _inputs(slot: str, reads: str | None) -> tuple[list[str], list[Any]]:
    """Names and shapes of what a module is called with."""
    feature = (1, CHANNELS, SIDE, SIDE)
    named: dict[str, Any] = {"x": feature} if slot == "ga" else {"context": feature, "x": feature}
    if reads == "aux":
        named["aux"] = (1, CLASSES, SIDE, SIDE)
    if reads == "maps":
        named["maps"] = [(1, width, side, side) for width, _, side in MAPS]
    return list(named), list(named.values())


def _zeros(shapes: list[Any]) -> Iterator[Tensor | tuple[Tensor, ...]]:
    for shape in shapes:
        several = isinstance(shape, list)
        yield tuple(torch.zeros(s) for s in shape) if several else torch.zeros(shape)


def _papers(config: DictConfig) -> list[str]:
    """Links to the papers that the classes named in a config cite, each once."""
    links: dict[str, str] = {}
    for target in re.findall(r"_target_: (gald\.\S+)", OmegaConf.to_yaml(config)):
        docstring = " ".join((get_class(target).__doc__ or "").split())
        cited = re.search(r"(?:Paper|After)\b.*?(?= (?:Reference|Deviations|Args):|$)", docstring)
        for title, link in re.findall(
            r'"([^"]+)",? ?(https?://[^\s,;)]+)', cited[0] if cited else ""
        ):
            links[link.rstrip(".")] = title
    return [f"[{title}]({link})" for link, title in links.items()]


if __name__ == "__main__":
    print(modules_table(), end="")
