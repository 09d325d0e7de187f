"""A GPU computes what the CPU computes. `make gpu-day` runs these tests.

On a machine without a GPU, `pytest -m gpu` runs the tests that do not need CUDA.
"""

import csv
import json

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch.nn.attention import SDPBackend, sdpa_kernel

from gald.config import compose
from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.evaluator import Evaluator
from gald.inference import LabelMap
from gald.model.layers import adaptive_avg_pool
from gald.run.checkpoint import read_checkpoint
from gald.task import SegmentationTask
from gald.training import train as training

pytestmark = pytest.mark.gpu

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="needs CUDA")
TINY = [
    "data.size=[64,96]",
    "data.train_transform.crop_size=[64,64]",
    "data.train_count=16",
    "data.val_count=4",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=32",
    "model.backbone.name=test_resnet",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "report=false",
    "callbacks=[checkpoint,learning_rate,progress]",
    "metrics=miou",
    "test=false",
    "optimizer.lr=0.05",
    "scheduler.warmup_steps=0",
]
# Most relative difference of a training loss from the one in float32.
CLOSE = {"bf16-mixed": 2e-2, "16-mixed": 5e-3}


@pytest.fixture
def train(gald_cli, tmp_path):
    """Returns a function that trains a tiny network; it returns the run folder."""

    def run(name, *words):
        folder = tmp_path / name
        words = [*TINY, f"trainer.accelerator={'gpu' if ON_GPU else 'cpu'}", *words]
        gald_cli("train", *words, f"output_dir={folder}")
        return folder

    return run


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def weights(folder):
    return read_checkpoint(folder / "checkpoints" / "last.ckpt").weights


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different, f"{len(different)} of {len(one)} tensors differ: {different[:3]}"


def network(*words):
    cfg = compose("train", ["model.channels=32", "model.backbone.name=test_resnet", *words])
    torch.manual_seed(0)
    return instantiate(cfg.model, num_classes=10).to(DEVICE).eval()


@pytest.mark.parametrize("precision", ["bf16-mixed", pytest.param("16-mixed", marks=needs_cuda)])
def test_half_precision_trains_like_float32(train, precision):
    full, half = losses(train("full")), losses(train("half", f"trainer.precision={precision}"))
    assert len(full) == len(half) == 4
    assert half == pytest.approx(full, rel=CLOSE[precision])


class NoWaiting(pl.Callback):
    """Makes every wait of the host for the GPU an error, from the second step to the third."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 1:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize(
    "words",
    [
        "loss=cross_entropy optimizer=sgd",
        "loss=ohem optimizer=adamw optimizer.fused=true trainer.gradient_clip_val=1",
        "loss=focal callbacks=[checkpoint,progress,ema]",
        "loss=boundary data.micro_batch_size=2",
        "loss=dice optimizer=adamw",
        "loss=tversky",
    ],
)
def test_the_host_does_not_wait_for_the_gpu_within_training_steps(train, monkeypatch, words):
    own = training.build_training

    def build_training(*parts):
        trainer = own(*parts)
        trainer.callbacks.append(NoWaiting())
        return trainer

    monkeypatch.setattr(training, "build_training", build_training)
    try:
        train("run", *words.split(), "trainer.log_every_n_steps=100")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_a_fused_optimizer_trains_with_a_gradient_scaler_and_averaged_weights(train):
    words = ("trainer.precision=16-mixed", "callbacks=[checkpoint,progress,ema]")
    plain = losses(train("plain", *words))
    assert losses(train("fused", *words, "optimizer.fused=true")) == pytest.approx(plain, rel=1e-2)


@needs_cuda
def test_a_compiled_training_is_one_that_differs_by_rounding(train):
    compiled = losses(train("compiled", "trainer.compile=true"))
    assert compiled == pytest.approx(losses(train("plain")), rel=1e-2)


@needs_cuda
def test_gradient_scaler_and_clipping_train(train):
    words = ("trainer.precision=16-mixed", "trainer.gradient_clip_val=0.1")
    folder = train("clipped", *words)
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights(folder).values())
    assert losses(folder) != losses(train("free", words[0]))


@needs_cuda
@pytest.mark.parametrize("ga", ["nonlocal", "mhsa"])
def test_attention_runs_in_a_fused_kernel(ga):
    """Without the slow formula among the choices, a missing fused kernel is an error."""
    model, image = network(f"model/ga={ga}"), torch.rand(2, 3, 192, 256, device=DEVICE)
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16), sdpa_kernel(fused):
        assert model(image).logits.isfinite().all()


def test_one_process_of_ddp_trains_like_a_process_without_ddp(train):
    ddp = ("trainer=ddp",) if ON_GPU else ("trainer=ddp_cpu",)
    ddp += ("trainer.devices=1", "trainer.precision=32-true", "trainer.sync_batchnorm=false")
    assert losses(train("ddp", *ddp)) == pytest.approx(losses(train("one")), rel=1e-4)


@needs_cuda
def test_synchronised_batch_norm_gives_the_scores_of_batch_norm():
    model, image = network().train(), torch.rand(2, 3, 64, 96, device=DEVICE)
    expected = model(image).logits
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    torch.testing.assert_close(synchronised(image).logits, expected, rtol=1e-3, atol=1e-3)


def test_channels_last_trains_like_the_default_layout(train):
    last = losses(train("last", "model.channels_last=true"))
    assert last == pytest.approx(losses(train("default")), rel=1e-2)


def test_deterministic_runs_are_equal_to_the_bit_also_when_resumed(train, monkeypatch):
    words = ("trainer.deterministic=true", "trainer.max_epochs=2")
    first = weights(train("first", *words))
    assert_equal_weights(first, weights(train("second", *words)))

    def power_cut(self):
        if self.trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(SegmentationTask, "on_train_epoch_start", power_cut)
        train("stopped", *words)
    assert_equal_weights(first, weights(train("stopped", *words, "ckpt_path=last")))


@needs_cuda
@pytest.mark.parametrize("size", [1, 3, (4, 6)])
def test_pooling_is_deterministic_and_the_same(size):
    x = torch.rand(2, 3, 13, 17, device=DEVICE, requires_grad=True)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, size)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    torch.use_deterministic_algorithms(True)
    try:
        actual = adaptive_avg_pool(x, size)
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
        (again,) = torch.autograd.grad(actual.square().sum(), x)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(again, gradient, rtol=1e-3, atol=1e-3)


def test_scores_are_equal_to_the_last_digit_on_both_devices(tmp_path):
    cfg = compose("train", ["data.root=none", "data=camvid"])
    names = [f"class {k}" for k in range(11)]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 11, (4, 90, 120), generator=generator, dtype=torch.uint8)
    truth = torch.where(torch.rand(labels.shape, generator=generator) < 0.7, labels, 255)
    confidence = torch.rand(labels.shape, generator=generator)
    scores = []
    for device in ("cpu", DEVICE):
        metrics = [make(num_classes=11) for make in instantiate(cfg.metrics).values()]
        evaluator = Evaluator(metrics, per_image=True).to(device)
        prediction = LabelMap(labels.to(device), confidence.to(device))
        evaluator.update(prediction, truth.to(device), [f"{i}" for i in range(4)])
        scores.append(evaluator.compute(names) | evaluator.fingerprints())
    assert json.dumps(scores[0]) == json.dumps(scores[1])


@needs_cuda
def test_batches_reach_the_gpu_from_pinned_memory(train, monkeypatch):
    pinned = []
    own = SegmentationDataModule.train_dataloader

    def train_dataloader(self):
        loader = own(self)
        pinned.append((loader.pin_memory, next(iter(loader))["image"].is_pinned()))
        return loader

    monkeypatch.setattr(SegmentationDataModule, "train_dataloader", train_dataloader)
    train("pinned")
    assert pinned == [(True, True)]


def test_warm_cells_train_on_the_device_like_cold_ones(gald_cli, tmp_path, monkeypatch):
    """A copy of a process can use CUDA only if the process itself has never done so."""
    monkeypatch.chdir(tmp_path)
    found = []
    for word in ("false", "true"):
        device = f"trainer.accelerator={'gpu' if ON_GPU else 'cpu'}"
        words = [*TINY, device, "trainer.deterministic=true", "seed=0,1", f"name={word}"]
        gald_cli("train", "-m", *words, f"hydra.launcher.warm={word}")
        files = sorted((tmp_path / "runs" / word).glob("*/results.json"))
        found.append([json.loads(file.read_text()) for file in files])
    assert [r["device"] for r in found[1]] == [f"{DEVICE}:0" if ON_GPU else "cpu"] * 2
    assert [r["val/miou"] for r in found[0]] == [r["val/miou"] for r in found[1]]


@needs_cuda  # on a CPU the compilation takes a minute
def test_compiled_network_gives_the_same_scores():
    model, image = network(), torch.rand(2, 3, 64, 96, device=DEVICE)
    with torch.no_grad():
        expected, actual = model(image).logits, torch.compile(model)(image).logits
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
