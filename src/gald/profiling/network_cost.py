"""Cost of a network on this machine, part by part."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import nn

from gald.cli import silence_warnings
from gald.device import pick_device
from gald.model.host.fill import fill_host
from gald.model.network import Network
from gald.model.plugged import Plugged
from gald.options.check import check_config
from gald.options.roots import Profile
from gald.profiling.flops import NAMES, NOT_COUNTED, count_params, parts
from gald.profiling.measure import CostMeter
from gald.run.building import build_own
from gald.run.provenance import commit, versions
from gald.run.results import Results, write_results
from gald.run.trunk import TRUNKS, trunk_key

PHASES = ("eval", "train")
DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def profile(cfg: DictConfig) -> Results:
    """Measure each part on inputs recorded from a full pass, then the whole; write profile.json.

    Raises:
        ValueError: an option is invalid, or the folder already has a profile.
    """
    silence_warnings()
    fill_host(cfg.model)
    check_config(cfg, Profile)
    path = Path(cfg.output_dir) / "profile.json"
    if path.exists():
        raise ValueError(f"{path} already holds a profile; choose another output_dir")
    device = pick_device(cfg.device)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(cfg.seed)
    trunk = cfg.model[trunk_key(cfg.model) or TRUNKS[0]]
    if "weights" in trunk:
        trunk.weights = None  # they do not change the cost, and may need a download
    num_classes = cfg.num_classes or build_own(cfg.data).num_classes
    model: Network = build_own(cfg.model, num_classes=num_classes).to(device)
    shape = (cfg.batch_size, model.image_channels, *cfg.size)
    image = torch.randint(256, shape, dtype=torch.uint8, device=device)

    meter = CostMeter(device, DTYPES[cfg.precision], cfg.rounds)
    results: Results = {f"{name}/params": count_params(m) for name, m in parts(model).items()}
    results["total/params"] = count_params(model)
    for phase in PHASES:
        model.train(phase == "train")
        whole = model if phase == "train" else model.logits
        with Console(markup=False, emoji=False, stderr=True).status(f"measuring {phase}"):
            measured = {
                name: meter.measure(module, _alone(model, name, module), inputs, phase)
                for name, (module, inputs) in meter.record(model, whole, image).items()
            }
            measured["total"] = meter.measure(model, whole, (image,), phase)
        for name, cost in measured.items():
            results |= {f"{name}/{phase}/{key}": value for key, value in cost._asdict().items()}
    results |= {
        "size": list(cfg.size),
        "batch_size": cfg.batch_size,
        "num_classes": num_classes,
        "device": _describe(device),
        "precision": cfg.precision,
        "rounds": cfg.rounds,
        "memory": meter.memory,
        "not_counted": NOT_COUNTED,
        "command": shlex.join(["gald", "profile", *sys.argv[1:]]),
        "commit": commit(),
        **versions(),
    }
    say = Console(markup=False, emoji=False).print
    say(_table(results))
    say(f"GMACs do not count {NOT_COUNTED}. MiB: {meter.memory}.")
    say("Parts were run alone on recorded inputs; only GMACs and parameters sum to the total.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_results(path, results)
    say(f"profile: {path}", soft_wrap=True)
    return results


def _alone(model: Network, name: str, module: nn.Module) -> Callable[..., Any]:
    """Return the call of a part without the parts inside it."""
    return model.host_alone if isinstance(model, Plugged) and name == "host" else module


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def _table(results: Results) -> Table:
    """Build a table with a row per part; train means forward and backward."""
    height, width = results["size"]
    table = Table(
        "part",
        title=f"{results['batch_size']} x {height}x{width} px, {results['num_classes']} classes, "
        f"{results['device']}, {results['precision']}",
    )
    for column in (
        "params",
        *(f"{phase}\n{u}" for phase in PHASES for u in ("GMACs", "ms", "MiB")),
    ):
        table.add_column(column, justify="right")
    for name in (*NAMES, "total"):
        if name == "total":
            table.add_section()
        if f"{name}/params" not in results:
            continue
        row = [f"{results[f'{name}/params']:,}"]
        for phase in PHASES:
            for key, form in (("gmacs", ".3f"), ("ms", ".2f"), ("mib", ".1f")):
                value = results.get(f"{name}/{phase}/{key}")
                row.append("-" if value is None else f"{value:{form}}")
        table.add_row(name, *row)
    return table
