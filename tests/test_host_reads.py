"""A training step reads nothing from the device that it would have to wait for."""

from collections import Counter
from pathlib import Path

import host_reads
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from gald.callbacks.ema import MovingAverage
from gald.config import compose
from gald.training.build import build_task, build_training

CONF = Path(__file__).parents[1] / "conf"
LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
TINY = [
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=12",
    "data.val_count=1",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=0",
    "trainer.log_every_n_steps=100",
    "trainer.gradient_clip_val=1",
    "callbacks=[checkpoint,learning_rate,progress,ema]",
    "~callbacks.best",
    "logger=csv",
]


class Count(pl.Callback):
    """Counts the reads of the second and third step, with everything between the two."""

    def __init__(self):
        self.reads = host_reads.HostReads()
        self.entered = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 1 and not self.entered:  # the first of its micro-batches
            self.entered = True
            self.reads.__enter__()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            self.reads.__exit__(None, None, None)


def reads_of_two_steps(folder, *words):
    cfg = compose("train", [*TINY, f"output_dir={folder}", *words])
    data = instantiate(cfg.data)
    data.setup("fit")
    pl.seed_everything(0, verbose=False)
    task = build_task(cfg, data)
    trainer, count = build_training(cfg, folder, data, 0, ["miou"]), Count()
    trainer.callbacks.append(count)
    trainer.fit(task, data)
    return count.reads.counts


@pytest.mark.one_in(8)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_training_step_reads_only_its_own_finished_loss(loss, tmp_path):
    micro = {"combined": ["data.micro_batch_size=2", "data.train_count=12"]}
    counts = reads_of_two_steps(tmp_path, f"loss={loss}", *micro.get(loss, []))
    # The loss is read to end a training that diverges: on a CPU at once, on a GPU from a copy that
    # is a step old. Lovasz asks once which classes are present.
    expected = {"_local_scalar_dense": 2} | ({"nonzero": 2} if loss == "lovasz" else {})
    assert counts == expected


def test_the_counter_counts():
    x = torch.arange(4.0)
    with host_reads.HostReads() as reads:
        assert x[x > 1].sum() > 1  # a mask, and the answer
        x.nonzero(), x.equal(x), float(x[0]), x.unique()
    once = dict.fromkeys(["index", "nonzero", "equal", "_unique2"], 1)
    assert reads.counts == Counter(once | {"_local_scalar_dense": 2})


@pytest.mark.parametrize("loss", LOSSES)
def test_on_a_gpu_a_loss_neither_reads_nor_copies_from_the_host(loss):
    built = instantiate(compose("train", [f"loss={loss}"]).loss).main
    with host_reads.PretendedGpu() as gpu:
        logits = torch.empty(2, 5, 6, 8, device="cuda", requires_grad=True)
        mask = torch.empty(2, 48, 64, device="cuda", dtype=torch.uint8)
        if loss == "lovasz":
            with pytest.raises(DynamicOutputShapeException):
                built(logits, mask)
        else:
            assert built(logits, mask).shape == ()
        assert not gpu.copies
        with pytest.raises(DataDependentOutputException):
            logits.sum().item()
        torch.zeros(3).to("cuda")
    assert gpu.copies == [(3,)]


@pytest.mark.slow
def test_on_a_gpu_no_module_reads_or_copies_from_the_host():
    options = [(path.parent.name, path.stem) for path in CONF.glob("model/[ghl]*/*.yaml")]
    options = [option for option in options if option[0] in ("ga", "ld", "head")]
    assert len(options) > 50
    for slot, name in options:
        words = [
            "model.channels=32",
            "model.backbone.name=test_resnet",
            "model.backbone.output_stride=8",
        ]
        words += [
            "model.backbone.output_stride=8",
            "model/ga=none",
            "model/ld=none",
            f"model/{slot}={name}",
        ]
        network = instantiate(compose("train", words).model, num_classes=5).train()
        with host_reads.PretendedGpu() as gpu:
            network = network.to("cuda")
            gpu.copies.clear()
            size = (2, network.image_channels, 128, 192)
            network(torch.empty(size, device="cuda", dtype=torch.uint8))
        assert not gpu.copies, f"{slot}={name}"


def test_the_average_of_the_weights_is_that_of_the_formula():
    """average = keep * average + (1 - keep) * now, keep = min(decay, 1 - n ** -power)."""
    torch.manual_seed(0)
    callback, module = MovingAverage(decay=0.5, power=0.5), pl.LightningModule()
    module.net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    callback.setup(trainer, module, "fit")
    expected = None
    for number in range(1, 6):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        module.net[1].num_batches_tracked.add_(10)
        keep = min(0.5, 1 - number**-0.5)
        now = {name: value.clone() for name, value in module.state_dict().items()}
        if expected is None:
            expected = now
        else:
            for name, value in expected.items():
                value.copy_(keep * value + (1 - keep) * now[name])
        with host_reads.HostReads() as reads:
            callback._update(module)
        assert number == 1 or not reads.counts
    state = callback._average_model.state_dict()
    assert state.pop("n_averaged") == 5
    for name, value in expected.items():
        assert torch.equal(state[f"module.{name}"], value), name
