"""Speed of training steps, loading and evaluation on a GPU; a part of benchmarks/gpu_day.py."""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gald.config import compose
from gald.evaluation.evaluate import build_metrics
from gald.evaluation.evaluator import Evaluator
from gald.model.segmentor import Segmentor
from gald.optimizer import build_optimizer
from gald.task import SegmentationTask

# Dense peak of the H100 and H200 (SXM) in TFLOP/s, from NVIDIA's data sheet.
PEAK = {"tf32": 494.7, "bf16": 989.4}
SYNCHRONISING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
Row = dict[str, Any]
Batch = dict[str, Any]
Left = Callable[[], float]


@dataclass
class Network:
    """A network to time: its overrides, classes, batch size and image size (height, width)."""

    overrides: list[str]
    num_classes: int
    batch: int
    size: tuple[int, int]
    config: DictConfig = field(init=False)

    def __post_init__(self) -> None:
        weights = "model.backbone.weights=null"
        self.config = compose("train", [*self.overrides, weights, "optimizer=sgd", "name=gpu"])

    def build(
        self, device: torch.device, channels_last: bool = False
    ) -> tuple[Segmentor, nn.Module]:
        """Build the network and its loss with random weights."""
        torch.manual_seed(0)
        model = instantiate(
            self.config.model, num_classes=self.num_classes, channels_last=channels_last
        )
        return model.to(device).train(), instantiate(self.config.loss).to(device)

    def batches(self, count: int, device: str = "cpu") -> list[Batch]:
        """Return random batches as the data module gives them."""
        shape = (self.batch, *self.size)
        made = []
        for _ in range(count):
            image = torch.randint(0, 256, (self.batch, 3, *self.size), dtype=torch.uint8)
            mask = torch.randint(0, self.num_classes, shape, dtype=torch.uint8)
            if torch.cuda.is_available() and device == "cpu":
                image, mask = image.pin_memory(), mask.pin_memory()
            names = [f"image {i}" for i in range(self.batch)]
            batch = {"image": image.to(device), "mask": mask.to(device), "name": names}
            pixels = torch.bincount(mask.flatten().int(), minlength=256)
            made.append(batch | {"pixels": pixels, "step_pixels": pixels})
        return made


@dataclass(frozen=True)
class Options:
    """Options of a training step, named as in the table."""

    name: str
    bf16: bool = True
    channels_last: bool = False
    compile: bool = False
    fused: bool = False
    search: bool = False  # cudnn.benchmark: try the algorithms at the first step


STEPS = [
    Options("bf16"),
    Options("bf16, channels last", channels_last=True),
    Options("bf16, channels last, fused optimizer", channels_last=True, fused=True),
    Options("fp32 (TF32)", bf16=False),
]
SLOW_TO_START = [
    Options("bf16, channels last, fused optimizer, compiled", True, True, True, True),
    Options("bf16, channels last, cudnn.benchmark", channels_last=True, search=True),
]


def networks(toy: bool) -> dict[str, Network]:
    """Return the networks to time; the toy versions are tiny."""
    arms = {"GALD": ["model/ga=cgnl", "model/ld=mask"], "none": ["model/ga=none", "model/ld=none"]}
    if toy:
        small = ["model.backbone.name=test_resnet", "model.channels=16"]
        return {
            f"toy, {name}": Network([*small, *arm], 10, 2, (64, 96)) for name, arm in arms.items()
        }
    resnet = ["model.backbone.name=resnet101", "model.channels=512"]
    lite = ["experiment=camvid_lite0", "data.root=none"]
    made = {f"ResNet-101, {n}": Network([*resnet, *a], 19, 8, (769, 769)) for n, a in arms.items()}
    return made | {
        "lite0, GALD": Network(lite, 11, 8, (360, 480)),
        "lite0, none": Network([*lite, *arms["none"]], 11, 8, (360, 480)),
    }


def measure(toy: bool, folder: Path, left: Left, save: Callable[[str, Any], None]) -> None:
    """Measure everything in the order of its importance; `save` gets each result by name."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    save("ceilings", ceilings(device, 256 if toy else 8192))
    nets = networks(toy)
    first, *others = nets
    rows: list[Row] = []

    def time_steps(name: str, options: Sequence[Options]) -> None:
        for option in options:
            if left() <= (40 if option in SLOW_TO_START else 5):
                return
            rows.append({"network": name} | _or_error(step, nets[name], option, device, toy))
            save("steps", rows)

    time_steps(first, STEPS[:2] if toy else STEPS)
    save("overhead", _or_error(overhead, nets[first], device, folder, toy))
    for name in others:
        time_steps(name, STEPS[:2])
    if left() > 20:
        save("evaluation", _or_error(evaluation, nets[first], device, toy))
    if left() > 15:
        save("largest batch", _or_error(largest_batch, nets[first], device, toy))
    if left() > 10:
        save("loader", _or_error(loader, folder, toy, left))
    if not toy:
        time_steps(first, SLOW_TO_START)


def _or_error(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a measurement; an error becomes its result, so that the others go on."""
    try:
        return function(*arguments)
    except Exception as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def ceilings(device: torch.device, n: int) -> Row:
    """Measure what the device can do: bf16 matrix product (TFLOP/s) and copy (TB/s)."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = seconds(lambda: a @ b, device, 10)
    source = torch.empty(n * n * 4, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source), device, 10)
    return {
        "bf16 matrix product, TFLOP/s": 2 * n**3 / product / 1e12,
        "copy, TB/s read and written": 2 * source.nbytes / copy / 1e12,
    }


def seconds(run: Callable[[], object], device: torch.device, count: int) -> float:
    """Return the median of three times per call, each the mean over `count` calls."""
    for _ in range(3):
        run()
    times = []
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        for _ in range(count):
            run()
        _wait(device)
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class PlainStep:
    """A training step in plain PyTorch: transfer, forward, loss, backward, optimizer, schedule."""

    def __init__(self, network: Network, options: Options, device: torch.device) -> None:
        self.device, self.options = device, options
        self.model, self.loss = network.build(device, options.channels_last)
        make = instantiate(network.config.optimizer)
        make = functools.partial(make.func, *make.args, **make.keywords | {"fused": options.fused})
        self.optimizer = build_optimizer(self.model, make, decay_norm_and_bias=False)
        self.scheduler = instantiate(network.config.scheduler)(self.optimizer, 10_000)
        self.forward = torch.compile(self.model) if options.compile else self.model

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch; return the loss."""
        image, mask = (batch[key].to(self.device, non_blocking=True) for key in ("image", "mask"))
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.options.bf16 else None
        with autocast or nullcontext():
            loss = self.loss(self.forward(image), mask)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()


def _time_plain(
    network: Network, options: Options, batches: list[Batch], device: torch.device, count: int
) -> float:
    run, stream = PlainStep(network, options, device), itertools.cycle(batches)
    return seconds(lambda: run(next(stream)), device, count)


def step(network: Network, options: Options, device: torch.device, toy: bool) -> Row:
    """Time a training step in plain PyTorch."""
    start = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.backends.cudnn.benchmark = options.search
    each = _time_plain(network, options, network.batches(2), device, 1 if toy else 8)
    flops = _flops(network, device)
    peak = PEAK["bf16" if options.bf16 else "tf32"]
    row = {
        "options": options.name,
        "batch": network.batch,
        "size": list(network.size),
        "milliseconds": 1e3 * each,
        "images per second": network.batch / each,
        "TFLOP/s": flops / each / 1e12,
        "MFU": flops / each / 1e12 / peak,
        "measured in, s": time.perf_counter() - start,
    }
    if device.type == "cuda":
        row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.empty_cache()
    return row


def _flops(network: Network, device: torch.device) -> float:
    """Floating-point operations of forward and backward of one batch (2 per multiply-add)."""
    model, loss = network.build(device)
    (batch,) = network.batches(1, str(device))
    one = {key: batch[key][:2] for key in ("image", "mask")}  # batch norm needs two images
    with FlopCounterMode(display=False) as counter:
        loss(model(one["image"]), one["mask"]).backward()
    return counter.get_total_flops() * network.batch / 2


class Clock(pl.Callback):
    """Times the steps between two indices, and profiles the steps after them."""

    def __init__(self, device: torch.device, first: int, last: int, profiled: int) -> None:
        self.device, self.first, self.last, self.profiled = device, first, last, profiled
        self.start = self.seconds_per_step = self.wall = 0.0
        self.profiler: torch.profiler.profile | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Read the clock when the device has finished the step."""
        step = trainer.global_step
        if step not in (self.first, self.last, self.last + self.profiled):
            return
        _wait(self.device)
        now = time.perf_counter()
        if step == self.first:
            self.start = now
        elif step == self.last:
            self.seconds_per_step = (now - self.start) / (self.last - self.first)
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self.device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self.profiler = torch.profiler.profile(activities=activities)
            self.profiler.start()
            self.start = time.perf_counter()
        elif self.profiler is not None:
            self.wall = now - self.start
            self.profiler.stop()


def overhead(network: Network, device: torch.device, folder: Path, toy: bool) -> Row:
    """Compare Lightning's training with the plain step, and profile it.

    Both run the same network, batches and options (bf16, channels last). Lightning has the
    callbacks and the CSV logger of a run of `gald train`.
    """
    first, last, profiled = (2, 4, 1) if toy else (10, 40, 5)
    batches = network.batches(4)
    options = Options("bf16, channels last", channels_last=True)
    alone = _time_plain(network, options, batches, device, last - first)
    clock = Clock(device, first, last, profiled)
    _fit(network, batches, clock, folder, device)
    row = {
        "plain, ms per step": 1e3 * alone,
        "gald train, ms per step": 1e3 * clock.seconds_per_step,
        "ratio": clock.seconds_per_step / alone,
    }
    return row | _profile(clock, profiled)


def _fit(
    network: Network,
    batches: list[Batch],
    clock: Clock,
    folder: Path,
    device: torch.device,
) -> None:
    cfg = network.config
    model, loss = network.build(device, channels_last=True)
    task = SegmentationTask(
        model,
        loss,
        instantiate(cfg.inference),
        instantiate(cfg.optimizer),
        instantiate(cfg.scheduler),
        [f"class {k}" for k in range(network.num_classes)],
    )
    words = ["callbacks=[learning_rate,progress]", "output_dir=none"]
    callbacks = instantiate(compose("train", words).callbacks)
    steps = clock.last + clock.profiled
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=CSVLogger(folder, name="overhead"),
        log_every_n_steps=10,
        callbacks=[*callbacks.values(), clock],
        default_root_dir=folder,
    )
    trainer.fit(task, _Repeated(batches, steps))


class _Repeated:
    """An iterable of `count` batches in a cycle, which Lightning accepts as a loader."""

    def __init__(self, batches: list[Batch], count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(itertools.cycle(self.batches), self.count)


def _profile(clock: Clock, steps: int) -> Row:
    """Summarise a profile: the top ten, host synchronisations, and the idle share of the GPU."""
    assert clock.profiler is not None, "the training reached the profiled steps"
    events = clock.profiler.key_averages()
    on_gpu = clock.device.type == "cuda"

    def cost(event: Any) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    cpu = torch.autograd.DeviceType.CPU
    # An annotation, such as that of the optimizer's step, spans kernels that are listed as well.
    kernels = [
        event
        for event in events
        if not event.is_user_annotation and not (on_gpu and event.device_type == cpu)
    ]
    top = sorted(kernels, key=cost, reverse=True)[:10]
    row: Row = {
        "top ten, ms per step": {e.key[:80]: cost(e) / 1e3 / steps for e in top},
        "host synchronisations per step": sum(e.count for e in events if e.key in SYNCHRONISING)
        / steps,
    }
    if on_gpu:
        row["idle share of the GPU"] = 1 - sum(map(cost, kernels)) / 1e6 / clock.wall
    return row


def loader(folder: Path, toy: bool, left: Left) -> list[Row]:
    """Time the training loader on Cityscapes-sized images for several numbers of workers."""
    size, count = ((96, 128), 8) if toy else ((1024, 2048), 64)
    root = _write_images(folder / "images", size, count)
    crop = [64, 64] if toy else [769, 769]
    rows = []
    for cache, workers in itertools.product(("none", "decoded"), (1,) if toy else (1, 4, 8, 16)):
        if left() <= 5:
            break
        words = ["data=folder", f"data.root={root}", f"data.cache={cache}"]
        words += [f"data.cache_dir={folder / 'cache'}", f"data.train_transform.crop_size={crop}"]
        words += ["data.global_batch_size=8", f"data.num_workers={workers}"]
        module = instantiate(compose("train", words).data)
        module.setup("fit")
        batches = _endless(module.train_dataloader())
        next(batches)  # the workers have started
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < (0.2 if toy else 4):
            images += len(next(batches)["image"])
        rate = images / (time.perf_counter() - start)
        rows.append({"cache": cache, "workers": workers, "images per second": rate})
        del batches, module
    return rows


def _endless(source: Any) -> Iterator[Batch]:
    while True:
        yield from source


def _write_images(root: Path, size: tuple[int, int], count: int) -> Path:
    """Write noisy images that compress like photos, and blocky masks, for `data=folder`."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count if split == "train" else 1):
            coarse = rng.integers(0, 256, (size[0] // 32, size[1] // 32, 3), dtype=np.uint8)
            image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
            image = np.clip(image + rng.integers(-2, 3, image.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            ids = rng.integers(0, 3, (size[0] // 32, size[1] // 32), dtype=np.uint8)
            mask = cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(root / "masks" / split / f"{i}.png"), mask)
    classes = "".join(f"  - name: class {k}\n    ids: [{k}]\n" for k in range(3))
    (root / "classes.yaml").write_text(f"classes:\n{classes}")
    return root


def evaluation(network: Network, device: torch.device, toy: bool) -> list[Row]:
    """Time the evaluation of large images, whole and in windows, with and without the metrics."""
    model, _ = network.build(device)
    model.eval()
    size = (64, 96) if toy else (1024, 2048)
    window = [64, 64] if toy else [769, 769]
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)
    coarse = torch.randint(0, network.num_classes, (1, *size), dtype=torch.uint8)[:, ::32, ::32]
    mask = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2).to(device)
    images = 2 if toy else 16
    rows = []
    for name, words in (("whole", []), ("slide", [f"inference.window={window}"])):
        cfg = compose("train", [f"inference={name}", *words])
        inference = instantiate(OmegaConf.to_container(cfg.inference, resolve=True))
        metrics = build_metrics(cfg.metrics, network.num_classes)

        def predict(inference: Any = inference) -> Any:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                return inference.predict(model, image, True)

        def predict_and_count(predict: Any = predict, metrics: Any = metrics) -> None:
            evaluator = Evaluator(metrics, per_image=True).to(device)
            for number in range(images):  # the metrics of one run beside the next ones
                evaluator.update(predict(), mask, [f"image {number}"])
            evaluator.finish()

        alone = seconds(predict, device, 1 if toy else 4)
        both = seconds(predict_and_count, device, 1) / images
        rows.append(
            {
                "inference": name,
                "images per second": 1 / both,
                "share of the metrics": 1 - alone / both,
            }
        )
    return rows


def largest_batch(network: Network, device: torch.device, toy: bool) -> Row:
    """Double the batch of a bf16 step until the memory is full."""
    best = 0
    for batch in (1, 2) if toy else (8, 16, 32, 64, 128):
        bigger = Network(network.overrides, network.num_classes, max(2, batch), network.size)
        try:
            run = PlainStep(bigger, Options("bf16", channels_last=True), device)
            run(bigger.batches(1)[0])
            _wait(device)
            best = bigger.batch
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
    return {"largest batch tried that fits": best}
