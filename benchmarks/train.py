"""Benchmark of the whole training loop: ours, and those of other projects, with the same backbone.

    make bench-train
    make bench-train ARGS="--camvid FOLDER --markdown FILE"

Every row trains 8 crops of 288x384 per step, with loading, optimizer and all that its loop does in
between, on one thread and without loader processes. All load the same crops, with our loader. Ours
is the training of `gald train`: data module, Lightning module, trainer, callbacks, CSV logger.
"before" is torch's depth-wise convolutions, the default layout, cross-entropy at full size, and
memory that glibc returns to the system. The others have that memory too, as it is their default.

The rows take turns of one step: each has a process that waits while it is not its turn. A number is
images per second of CPU time of the process, from the median of its steps. The
matrix products at the top bound any of them on this machine, so that figures of two machines can be
read together.
"""

import argparse
import multiprocessing
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from peers import NoOperators
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import data  # benchmarks/data.py, for machine() and short()
from gald.cli import silence_warnings
from gald.config import compose
from gald.loss.deep_supervision import DeepSupervision
from gald.training.build import build_task, build_training

BACKBONE, STRIDE = "tf_efficientnet_lite0", 16
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
COMMON = ["model/ga=none", "model/ld=none", "optimizer=sgd", "logger=csv", "report=false"]
COMMON += ["trainer.accelerator=cpu", "trainer.limit_val_batches=0", "~callbacks.best"]
COMMON += ["model.backbone.weights=null", "data.num_workers=0", "trainer.max_epochs=1000"]
LITE0, RESNET = ["model/backbone=lite0"], ["model/backbone=resnet18"]
BF16 = ["trainer.precision=bf16-mixed"]
BEFORE = ["model.channels_last=false", "model.fast_depthwise=false"]
OURS = {
    "ours, fp32": LITE0,
    "ours, bf16": [*LITE0, *BF16],
    "ours before, fp32": [*LITE0, *BEFORE],
    "ours before, bf16": [*LITE0, *BF16, *BEFORE],
    "ours, ResNet-18 at stride 8, fp32": RESNET,
    "ours before, ResNet-18 at stride 8, fp32": [*RESNET, *BEFORE],
}


class Turns:
    """The turns of a loop, in its process: no loop changes another's memory."""

    def __init__(self, there: Connection) -> None:
        self.network: nn.Module | None = None  # set by the loop, to count its multiply-adds
        self._there = there
        self._start: float | None = None

    def here(self) -> None:
        """Called by the loop between two steps: wait until its next turn."""
        if self._start is None:
            assert self.network is not None, "a loop names its network before its first step"
            self._there.send(gmacs(self.network))
        else:
            self._there.send(time.process_time() - self._start)
        self._there.recv()
        self._start = time.process_time()


def run_loop(name: str, dataset: list[str], folder: Path, there: Connection) -> None:
    """Run the loop of a row, in its own process, until the benchmark ends."""
    silence_warnings()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        _loops(dataset, folder)[name]()(Turns(there))
    except (EOFError, BrokenPipeError):  # the benchmark has ended
        pass
    except ImportError as error:
        there.send(error)
    except BaseException as error:
        there.send(RuntimeError(f"{name}: {type(error).__name__}: {error}"))


class Row:
    """A row of the table: the process of its loop."""

    def __init__(self, name: str, dataset: list[str], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        context.Process(target=run_loop, args=(name, dataset, folder, there), daemon=True).start()
        there.close()
        self.gmacs = self._answer()

    def step(self) -> float:
        """Let the loop do a step, and return its CPU seconds."""
        self._here.send("go")
        return self._answer()

    def _answer(self) -> float:
        answer = self._here.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Gate(pl.Callback):
    """Waits for its turn before every step of Lightning."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_batch_start(self, *_: Any) -> None:
        """Wait."""
        self.turns.here()


class PlainCrossEntropy(nn.Module):
    """Cross-entropy of logits that `DeepSupervision` resizes to the mask."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the labelled pixels."""
        return F.cross_entropy(logits, mask.long(), ignore_index=255)


def ours(words: list[str], dataset: list[str], folder: Path) -> Callable[[Turns], None]:
    """Train as `gald train` does."""

    def loop(turns: Turns) -> None:
        cfg = compose("train", [*COMMON, *dataset, *words, f"output_dir={folder}"])
        module = instantiate(cfg.data)
        module.setup("fit")
        task = build_task(cfg, module)
        if BEFORE[0] in words:
            patch("gald.task.reuse_memory").start()
            task.loss = DeepSupervision(PlainCrossEntropy(), PlainCrossEntropy(), 0.4)
        trainer = build_training(cfg, folder, module, 0)
        trainer.callbacks.insert(0, Gate(turns))
        turns.network = task.model
        trainer.fit(task, module)

    return loop


def smp(dtype: torch.dtype | None, dataset: list[str]) -> Callable[[Turns], None]:
    """Train DeepLabV3+ of segmentation_models_pytorch in a plain loop, as in its examples."""
    from segmentation_models_pytorch import DeepLabV3Plus

    def loop(turns: Turns) -> None:
        batches, classes = _batches(dataset)
        model = DeepLabV3Plus(
            f"tu-{BACKBONE}", encoder_weights=None, encoder_output_stride=STRIDE, classes=classes
        )
        turns.network = model.train()
        optimizer = torch.optim.SGD(model.parameters(), **SGD)
        turns.here()
        for batch in batches:
            image = (batch["image"].float() / 255 - 0.5) / 0.25
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(image), batch["mask"].long(), ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            turns.here()

    return loop


def mmsegmentation(dataset: list[str], folder: Path) -> Callable[[Turns], None]:
    """Train with the runner of mmengine: its FCN with an auxiliary head, on the timm backbone."""
    sys.modules.setdefault("mmcv._ext", NoOperators("mmcv._ext"))
    from mmengine.hooks import Hook
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmengine.structures import PixelData
    from mmseg.models.backbones.timm_backbone import TIMMBackbone  # noqa: F401  registers it
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    class Wait(Hook):
        def __init__(self, turns: Turns) -> None:
            self.turns = turns

        def before_train_iter(self, *_: Any, **__: Any) -> None:
            self.turns.here()

    class Batches:
        """The loader, as batches of mmsegmentation."""

        def __init__(self) -> None:
            self.batches, self.classes = _batches(dataset)
            self.dataset = ()  # mmengine asks it for the names of the classes

        def __len__(self) -> int:
            return 10**6

        def __iter__(self) -> Iterator[dict[str, Any]]:
            for batch in self.batches:
                masks = (PixelData(data=mask[None].long()) for mask in batch["mask"])
                samples = []
                for mask in masks:
                    sample = SegDataSample(metainfo={"img_shape": mask.shape})
                    sample.gt_sem_seg = mask
                    samples.append(sample)
                yield {"inputs": list(batch["image"]), "data_samples": samples}

    def loop(turns: Turns) -> None:
        init_default_scope("mmseg")
        loader = Batches()
        decode = {"type": "FCNHead", "num_classes": loader.classes, "dropout_ratio": 0.1}
        decode |= {"norm_cfg": {"type": "BN"}, "align_corners": False}
        model = MODELS.build(
            {
                "type": "EncoderDecoder",
                "data_preprocessor": {
                    "type": "SegDataPreProcessor",
                    "mean": [123.675, 116.28, 103.53],
                    "std": [58.395, 57.12, 57.375],
                    "pad_val": 0,
                    "seg_pad_val": 255,
                    "size": (288, 384),
                },
                "backbone": {
                    "type": "TIMMBackbone",
                    "model_name": BACKBONE,
                    "pretrained": False,
                    "output_stride": STRIDE,
                },
                "decode_head": decode
                | {"in_channels": 320, "in_index": 4, "channels": 128, "num_convs": 2},
                "auxiliary_head": decode
                | {"in_channels": 112, "in_index": 3, "channels": 64, "num_convs": 1}
                | {"loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4}},
                "train_cfg": {},
                "test_cfg": {"mode": "whole"},
            }
        )
        turns.network = model.backbone
        runner = Runner(
            model,
            work_dir=str(folder),
            train_dataloader=loader,
            train_cfg={"by_epoch": False, "max_iters": 10**6},
            optim_wrapper={"type": "OptimWrapper", "optimizer": {"type": "SGD", **SGD}},
            log_level="ERROR",
            default_scope="mmseg",
        )
        runner.register_hook(Wait(turns), priority="VERY_HIGH")
        runner.train()

    return loop


def _batches(dataset: list[str]) -> tuple[Iterator[dict[str, Any]], int]:
    """Return endless batches of our loader, and the number of classes."""
    module = instantiate(compose("train", [*COMMON, *dataset]).data)
    module.setup("fit")
    loader = module.train_dataloader()

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield from loader

    return endless(), module.num_classes


def gmacs(network: nn.Module) -> float:
    """Return the multiply-adds of an image's step, in billions: three times those of the forward.

    It is that of the backbone alone for mmsegmentation: its heads need more than a tensor.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(2, 3, 288, 384))
    return 3 * counter.get_total_flops() / 2 / 2e9


def main() -> None:
    """Measure all rows, print a table and, with --markdown, write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camvid", type=Path, help="folder with CamVid; otherwise synthetic crops")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="", help="only rows with this pattern in their names")
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    silence_warnings()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = ["data.train_transform.crop_size=[288,384]", "data.global_batch_size=8"]
    if args.camvid:
        dataset += ["data=camvid", f"data.root={args.camvid}", "data.cache=ram"]
    else:
        dataset += ["data=synthetic", "data.size=[360,480]", "data.train_count=64"]
    rates = data.roofline()
    peaks = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    with tempfile.TemporaryDirectory() as folder:
        loops = _loops(dataset, Path(folder))
        loops = data.that_this_cpu_can(loops, rates)
        seconds, sizes = _measure(list(loops), dataset, Path(folder), args)
    note = f"{data.machine()}; {'CamVid' if args.camvid else 'synthetic'} crops of 288x384, batch "
    note += f"8, {args.rounds} rounds, one thread. Matrix products of 1024, GFLOP/s: {peaks}."
    first = next((name for name in seconds if name.startswith("ours before, fp32")), "")
    peers = [name for name in seconds if not name.startswith("ours")]
    best = min(peers, key=lambda name: statistics.median(seconds[name]), default="")
    head = ["training", "s per step", "least", "images/s", "GMACs an image"]
    head += [f"vs. {best or 'peers'}", "vs. ours before"]
    lines = []
    for name, values in seconds.items():
        median = statistics.median(values)
        base = {True: "ours before, ResNet-18 at stride 8, fp32"}.get("ResNet" in name, first)
        ratios = [
            f"{statistics.median(seconds[other]) / median:.2f}x" if other in seconds else "-"
            for other in (best if "ResNet" not in name else "", base)
        ]
        numbers = (median, min(values), 8 / median, sizes[name])
        lines.append([name, *map(data.short, numbers), *ratios])
    table = Table(*head)
    for line in lines:
        table.add_row(*line)
    Console(width=max(124, Console().width)).print(note, table, sep="\n")
    if args.markdown:
        rule = ["---", *["---:"] * (len(head) - 1)]
        text = [note, "", *("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
        args.markdown.write_text("\n".join([*text, ""]))


def _loops(dataset: list[str], folder: Path) -> dict[str, Callable[[], Callable[[Turns], None]]]:
    rows: dict[str, Callable[[], Callable[[Turns], None]]] = {
        name: lambda words=words, i=i: ours(words, dataset, folder / f"{i}")
        for i, (name, words) in enumerate(OURS.items())
    }
    rows["smp DeepLabV3+, plain loop, fp32"] = lambda: smp(None, dataset)
    rows["smp DeepLabV3+, plain loop, bf16"] = lambda: smp(torch.bfloat16, dataset)
    rows["mmsegmentation FCN, mmengine, fp32"] = lambda: mmsegmentation(dataset, folder / "mm")
    return rows


def _measure(
    names: list[str], dataset: list[str], folder: Path, args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the CPU seconds of the steps of each row, and the multiply-adds of its network."""
    rows, sizes = {}, {}
    for name in names:
        if not re.search(args.rows, name):
            continue
        try:
            rows[name] = Row(name, dataset, folder)
        except ImportError as error:
            print(f"{name} is skipped: {error}")
            continue
        sizes[name] = rows[name].gmacs
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(args.rounds + 1):
        for name in random.sample(list(rows), len(rows)):
            spent = rows[name].step()
            if number:  # the first round warms up
                seconds[name].append(spent)
        print(f"round {number} of {args.rounds}", flush=True)
    return seconds, sizes


if __name__ == "__main__":
    main()
