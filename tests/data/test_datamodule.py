"""The data module, alone and inside a real trainer."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import fake
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from gald.config import compose
from gald.data.camvid import CamVidDataModule
from gald.data.dataset import IDENTITY_LUT, RawSample
from gald.data.loading.copy_paste import CopyPaste
from gald.data.loading.sampler import CropRequest
from gald.data.reading.sample_error import SampleError
from gald.data.synthetic import SyntheticDataModule, SyntheticStreets
from gald.data.transforms import TrainTransform

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than cores
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21393
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*logs_folder|.*exists and is not empty"),
]


def build(**options):
    options = {
        "size": (32, 40),
        "train_count": 26,
        "val_count": 5,
        "test_count": 4,
        "train_transform": TrainTransform([32, 32]),
        "global_batch_size": 8,
        "num_workers": 0,
    } | options
    return SyntheticDataModule(**options)


def fingerprint(batch):
    digest = hashlib.sha256(batch["image"].numpy().tobytes() + batch["mask"].numpy().tobytes())
    return digest.hexdigest()[:12] + ":" + ",".join(batch["name"])


def epoch_of(module, epoch=0, start=0):
    module.setup("fit")
    loader = module.train_dataloader()
    loader.position = lambda: (epoch, start)
    return [fingerprint(batch) for batch in loader]


# batches


def test_batches_are_uint8_of_the_crop_size():
    module = build()
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (8, 3, 32, 32) and batch["mask"].shape == (8, 32, 32)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["image"].is_contiguous() and len(batch["name"]) == 8


def test_every_micro_batch_has_the_pixels_of_its_optimizer_step():
    module = build(micro_batch_size=2)
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert len(batches) == 3 * 4
    for start in range(0, 12, 4):
        step = batches[start : start + 4]
        labels = torch.cat([batch["mask"].flatten() for batch in step])
        for batch in step:
            assert torch.equal(batch["pixels"], torch.bincount(batch["mask"].flatten(), None, 256))
            assert torch.equal(batch["step_pixels"], torch.bincount(labels, None, 256))


def test_workers_do_not_change_the_batches():
    alone = [epoch_of(build(), epoch) for epoch in (0, 1)]
    assert len(set(alone[0] + alone[1])) == 6
    for workers in (1, 3):
        module = build(num_workers=workers)
        module.setup("fit")
        loader = module.train_dataloader()
        for epoch in (0, 1):  # with the same workers
            loader.position = lambda epoch=epoch: (epoch, 0)
            assert [fingerprint(batch) for batch in loader] == alone[epoch]


def test_an_epoch_stopped_early_does_not_change_the_next():
    expected = epoch_of(build(), 1)
    module = build(num_workers=2)
    module.setup("fit")
    loader = module.train_dataloader()
    next(iter(loader))
    loader.position = lambda: (1, 0)
    assert [fingerprint(batch) for batch in loader] == expected


def test_seeds_differ():
    assert epoch_of(build(seed=0)) != epoch_of(build(seed=1))


def test_crops_of_one_image_differ_between_seeds_and_epochs():
    draws = [(0, 0), (0, 1), (1, 0)]  # seed, epoch
    crops = []
    for seed, epoch in draws:
        module = build(seed=seed)
        module.setup("fit")
        crops.append([module.crops()[CropRequest(epoch, image)]["image"] for image in range(26)])
    assert not any(map(torch.equal, crops[0], crops[1]))
    assert not any(map(torch.equal, crops[0], crops[2]))


def test_images_drawn_by_class_differ_between_seeds_and_epochs(tmp_path):
    drawn = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        module = build(seed=seed, class_uniform=1.0, cache_dir=str(tmp_path))
        module.setup("fit")
        sampler = module.requests()
        sampler.epoch = epoch
        drawn.append([(one.image, one.target_class) for batch in sampler for one in batch])
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]


def test_processes_share_each_global_batch(monkeypatch):
    whole = build()
    whole.setup("fit")
    expected = [batch["image"] for batch in whole.train_dataloader()]
    parts = []
    for rank in range(4):
        module = build(micro_batch_size=1)
        module.setup("fit")
        monkeypatch.setattr(module, "_rank_and_world_size", lambda rank=rank: (rank, 4))
        parts.append([batch["image"] for batch in module.train_dataloader()])
    for step, images in enumerate(expected):
        gathered = [part[2 * step + micro] for part in parts for micro in (0, 1)]
        assert torch.equal(torch.cat(gathered), images)


def test_loading_does_not_advance_the_global_random_stream():
    module = build()
    module.setup("fit")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(module.train_dataloader()))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_reads_each_image_once_without_crop_or_augmentation(monkeypatch):
    names = []
    for rank in range(3):
        module = build(eval_batch_size=2)
        module.setup("validate")
        monkeypatch.setattr(module, "_rank_and_world_size", lambda rank=rank: (rank, 3))
        for (batch,) in module.val_dataloader():  # all images have one size
            assert batch["image"].shape[2:] == (32, 40)
            names += batch["name"]
    assert sorted(names) == [f"val_{i:04d}" for i in range(5)]


def test_datasets_and_loader_functions_can_be_pickled_for_spawned_workers():
    module = build(num_workers=1)
    module.setup()
    for loader in (module.train_dataloader(), module.val_dataloader()):
        pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn, loader.worker_init_fn)))


def test_setup_builds_what_the_stage_needs():
    module = build()
    module.setup("test")
    assert module.train_dataset is None and module.val_dataset is None
    assert len(module.test_dataset) == 4


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_images_of_different_sizes_are_evaluated_uncropped_with_any_batch_size(camvid, batch_size):
    sizes = {"val_00": (24, 32), "val_01": (20, 30), "val_02": (24, 32)}
    for name, (h, w) in sizes.items():
        fake.write_image(camvid / "val" / f"{name}.png", np.zeros((h, w, 3), np.uint8))
        fake.write_labels(camvid / "valannot" / f"{name}.png", np.ones((h, w), np.uint8))
    module = CamVidDataModule(str(camvid), eval_batch_size=batch_size, num_workers=1)
    module.setup("validate")
    parts = [part for batch in module.val_dataloader() for part in batch]
    assert sorted(name for part in parts for name in part["name"]) == sorted(sizes)
    assert len(parts) == (2 if batch_size == 3 else 3)
    for part in parts:
        expected = (len(part["name"]), *sizes[part["name"][0]])
        assert tuple(part["mask"].shape) == expected and (part["mask"] == 1).all()
        assert part["image"].shape == (expected[0], 3, *expected[1:])


def test_training_images_of_different_sizes_need_a_crop_size(camvid):
    fake.write_image(camvid / "train" / "train_00.png", np.zeros((20, 30, 3), np.uint8))
    fake.write_labels(camvid / "trainannot" / "train_00.png", np.zeros((20, 30), np.uint8))
    module = CamVidDataModule(str(camvid), global_batch_size=7, num_workers=0)
    module.setup("fit")
    with pytest.raises(ValueError) as error:
        list(module.train_dataloader())
    assert str(error.value) == (
        "a batch has images of 30x20 and 32x24 pixels; set data.train_transform.crop_size"
    )


def test_no_two_workers_or_epochs_share_augmentation():
    """Workers are copies of one process; with copied random streams, crops would repeat."""
    module = build(train_count=16, global_batch_size=1, num_workers=4)
    module.setup("fit")
    original = module.train_dataset[0]
    module.train_dataset.__class__ = type("Same", (SyntheticStreets,), {"pixels": same_pixels})
    loader = module.train_dataloader()
    crops = set()
    for epoch in (0, 1, 2):
        loader.position = lambda epoch=epoch: (epoch, 0)
        crops |= {batch["image"].numpy().tobytes() for batch in loader}
    assert len(crops) == 3 * 16 and original["image"].shape == (3, 32, 40)


def same_pixels(self, index):
    return SyntheticStreets("val", 1, self.size).pixels(0)


def test_an_unknown_label_in_a_crop_names_the_file(camvid):
    path = camvid / "trainannot" / "train_03.png"
    fake.write_labels(path, np.full((24, 32), 77, np.uint8))
    transform = TrainTransform([40, 40], scale=(1, 1))
    module = CamVidDataModule(
        str(camvid), train_transform=transform, global_batch_size=7, num_workers=0
    )
    module.setup("fit")
    with pytest.raises(SampleError, match=r"train_03\.png has label 77, known are 0\.\.11; "):
        list(module.train_dataloader())


# sampling by class


def rare_class(**options):
    """40 training images with class 0, of which only the last has class 1."""
    module = build(train_count=40, train_transform=TrainTransform([16, 16]), **options)
    module.setup("fit")
    module.train_dataset.__class__ = type("Rare", (SyntheticStreets,), {"pixels": rare_pixels})
    return module


def rare_pixels(self, index):
    image, mask = np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40), np.uint8)
    if index == 39:
        mask[5:8, 30:33] = 1
        image[5:8, 30:33] = 200
    return RawSample(image, mask, IDENTITY_LUT)


def test_class_uniform_sampling_draws_a_rare_class_as_often_as_another(tmp_path):
    module = rare_class(class_uniform=1.0, global_batch_size=40, cache_dir=str(tmp_path))
    masks = []
    for epoch in range(10):
        loader = module.train_dataloader()
        loader.position = lambda epoch=epoch: (epoch, 0)
        masks += [mask for batch in loader for mask in batch["mask"]]
    shows = np.mean([bool((mask == 1).any()) for mask in masks])
    assert 0.42 < shows < 0.58  # with sampling by image: below 1/40
    crops = {mask.numpy().tobytes() for mask in masks if (mask == 1).any()}
    assert len(crops) > 50  # crops of one image within one epoch differ


def test_class_uniform_sampling_depends_only_on_seed_and_position(tmp_path):
    options = {"class_uniform": 0.5, "cache_dir": str(tmp_path)}
    whole = epoch_of(build(**options), 1)
    assert whole != epoch_of(build(), 1)
    assert epoch_of(build(num_workers=2, **options), 1) == whole
    assert epoch_of(build(**options), 1, start=1) == whole[1:]
    assert epoch_of(build(**options), 2) != whole


@pytest.mark.parametrize("name", ["class_uniform", "copy_paste"])
def test_shares_outside_0_to_1_are_refused(name):
    with pytest.raises(ValueError, match=rf"data\.{name} is 1\.5; it must be a fraction"):
        build(**{name: 1.5})


# copied pixels and transforms of albumentations


def augmented(tmp_path, **options):
    cfg = compose("train", ["augment=[strong,weather]"])
    extra = instantiate(cfg.data.train_transform.extra)
    transform = TrainTransform([32, 32], extra=extra)
    copies = {"copy_paste": 0.5, "cache_dir": str(tmp_path)}
    return build(train_transform=transform, **copies, **options)


@pytest.mark.integration
def test_augmented_batches_depend_only_on_seed_and_position(tmp_path, monkeypatch):
    whole = epoch_of(augmented(tmp_path), 1)
    assert not set(whole) & {*epoch_of(build(), 1), *epoch_of(augmented(tmp_path), 0)}
    assert not set(whole) & set(epoch_of(augmented(tmp_path, seed=1), 1))
    assert epoch_of(augmented(tmp_path, num_workers=2), 1) == whole
    assert epoch_of(augmented(tmp_path), 1, start=1) == whole[1:]
    images = [batch["image"] for batch in batches_of(augmented(tmp_path))]
    parts = []
    for rank in range(2):
        module = augmented(tmp_path, micro_batch_size=4)
        monkeypatch.setattr(module, "_rank_and_world_size", lambda rank=rank: (rank, 2))
        parts.append([batch["image"] for batch in batches_of(module)])
    both = [torch.cat(pair) for pair in zip(*parts, strict=True)]
    assert len(both) == len(images) and all(map(torch.equal, both, images))


def batches_of(module):
    module.setup("fit")
    return list(module.train_dataloader())


def test_copied_pixels_are_those_of_a_rare_class_of_another_image(tmp_path):
    plain = rare_class(global_batch_size=40, cache_dir=str(tmp_path))
    pasted = rare_class(copy_paste=0.5, global_batch_size=40, cache_dir=str(tmp_path))
    before, after = ({i["name"]: i for i in items(module)} for module in (plain, pasted))
    changed = 0
    for name, item in after.items():
        other, rare = before[name], item["mask"] == 1
        differs = other["mask"] != item["mask"]
        assert rare[differs].all() and torch.equal(
            item["image"][:, ~rare], other["image"][:, ~rare]
        )
        assert not rare.any() or item["image"][:, rare].float().mean() > 50
        changed += bool(differs.any())
    assert 10 <= changed <= 30  # half of forty


def items(module):
    module.setup("fit")
    crops = module.crops()
    return [crops[request] for batch in module.requests() for request in batch]


def test_rarer_half_of_the_classes_is_copied_each_as_often():
    pixels = np.array([[900, 0, 50, 0, 9], [900, 70, 50, 0, 0], [900, 0, 0, 0, 0]])
    paste = CopyPaste(pixels, 0.8)
    assert paste.classes.tolist() == [1, 4]
    draws = [paste.draw((0, 0, image, 0)) for image in range(2000)]
    chosen = [draw for draw in draws if draw is not None]
    assert len(chosen) == pytest.approx(1600, rel=0.05)
    classes, counts = np.unique([k for k, _ in chosen], return_counts=True)
    assert classes.tolist() == paste.classes.tolist()
    assert counts == pytest.approx(len(chosen) / 2, rel=0.1)
    assert all(pixels[image, k] for k, image in chosen)
    assert draws == [paste.draw((0, 0, image, 0)) for image in range(2000)]
    assert CopyPaste(np.zeros((3, 5), int), 1.0).draw((0, 0, 0, 0)) is None


def test_copied_pixels_need_crops():
    module = build(train_transform=None, copy_paste=0.5)
    module.setup("fit")
    with pytest.raises(ValueError, match=r"copy_paste=0\.5 needs crops .* set data\.copy_paste=0"):
        module.check()


# the plan of a global batch


@pytest.mark.parametrize(
    ("micro", "world", "accumulate", "sentence"),
    [
        (None, 1, 1, "global batch 8 = 1 device x 8 images x 1 accumulated"),
        (2, 2, 2, "global batch 8 = 2 devices x 2 images x 2 accumulated"),
        (1, 4, 2, "global batch 8 = 4 devices x 1 image x 2 accumulated"),
        (4, 4, 1, "global batch 8 = 4 devices x 2 images x 1 accumulated"),
    ],
)
def test_plan_follows_from_the_global_batch_size(micro, world, accumulate, sentence):
    module = build(micro_batch_size=micro)
    assert module.plan_batches(world) == accumulate
    assert module.batch_sentence(world) == sentence


def test_an_indivisible_batch_size_names_both_numbers():
    with pytest.raises(ValueError, match=r"global_batch_size \(8\) must be divisible .*\(3\)"):
        build().plan_batches(3)
    with pytest.raises(ValueError, match=r"the 8 images .* data\.micro_batch_size \(3\)"):
        build(micro_batch_size=3).plan_batches(1)


def test_batch_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match=r"data\.global_batch_size is 0; it must be at least 1"):
        build(global_batch_size=0)


# inside a trainer


class Recorder(pl.LightningModule):
    """Records the hash of each training batch."""

    def __init__(self, save_at=None, folder=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []
        self.save_at, self.folder = save_at, folder

    def training_step(self, batch, batch_idx):
        self.seen.append((self.trainer.current_epoch, batch_idx, fingerprint(batch)))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_batch_end(self, *_):
        if len(self.seen) == self.save_at:
            self.trainer.save_checkpoint(self.folder / "middle.ckpt")


class SaveAt(pl.Callback):
    """Saves a checkpoint in one hook of one epoch."""

    def __init__(self, hook, epoch, path):
        def save(trainer, module, *_):
            if trainer.current_epoch == epoch and not trainer.sanity_checking:
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def fit(module, recorder, tmp_path, ckpt_path=None, callbacks=(), **options):
    defaults = {"devices": 1, "max_epochs": 3, "accumulate_grad_batches": module.plan_batches(1)}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **(defaults | options),
    )
    trainer.fit(
        recorder, module, ckpt_path=ckpt_path, **({"weights_only": True} if ckpt_path else {})
    )
    return recorder.seen


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("workers", "saved_at"), [*((0, at) for at in (2, 3, 5, 6, 8, 11, 12)), (2, 3), (2, 8)]
)
def test_a_run_resumed_in_the_middle_of_an_epoch_sees_the_remaining_batches(
    tmp_path, saved_at, workers
):
    """Three epochs of six micro-batches, two per step; 6 and 12 are the end of an epoch."""
    options = {"micro_batch_size": 4, "num_workers": workers}
    whole = fit(build(**options), Recorder(saved_at, tmp_path), tmp_path)
    assert len(whole) == 18 and len({digest for *_, digest in whole}) == 18
    resumed = fit(build(**options), Recorder(), tmp_path, tmp_path / "middle.ckpt")
    assert resumed == whole[saved_at:]


@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_epoch_end"])
@pytest.mark.parametrize("stop", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 9}])
def test_a_run_resumed_at_the_end_of_an_epoch_begins_the_next(tmp_path, hook, stop):
    save = SaveAt(hook, 0, tmp_path / "end.ckpt")
    whole = fit(build(micro_batch_size=4), Recorder(), tmp_path, callbacks=[save], **stop)
    resumed = fit(build(micro_batch_size=4), Recorder(), tmp_path, tmp_path / "end.ckpt", **stop)
    assert [digest for *_, digest in resumed] == [digest for *_, digest in whole[6:]]


def test_a_run_limited_by_max_steps_resumes_in_the_middle_of_an_epoch(tmp_path):
    stop = {"max_epochs": -1, "max_steps": 8}
    whole = fit(build(micro_batch_size=4), Recorder(9, tmp_path), tmp_path, **stop)
    resumed = fit(build(micro_batch_size=4), Recorder(), tmp_path, tmp_path / "middle.ckpt", **stop)
    assert resumed == whole[9:]


@pytest.mark.integration
def test_validation_within_an_epoch_does_not_change_the_resumed_batches(tmp_path):
    options = {"val_check_interval": 2}
    save = SaveAt("on_validation_end", 1, tmp_path / "val.ckpt")  # the last one of epoch 1 stays
    whole = fit(
        build(micro_batch_size=4), Recorder(8, tmp_path), tmp_path, callbacks=[save], **options
    )
    resumed = fit(
        build(micro_batch_size=4), Recorder(), tmp_path, tmp_path / "middle.ckpt", **options
    )
    assert resumed == whole[8:]
    resumed = fit(build(micro_batch_size=4), Recorder(), tmp_path, tmp_path / "val.ckpt", **options)
    assert resumed == whole[12:]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 5}, "started with seed 0, but seed is now 5; resume with 0"),
        (
            {"global_batch_size": 4},
            "started with global_batch_size 8, but global_batch_size is now 4",
        ),
        (
            {"micro_batch_size": 2},
            "started with accumulated batches 2, but accumulated batches is now 4",
        ),
        ({"train_count": 30}, "started with training images 26, but training images is now 30"),
        ({"class_uniform": 0.5}, "started with class_uniform 0.0, but class_uniform is now 0.5"),
    ],
)
def test_a_resume_within_an_epoch_with_other_settings_is_refused(tmp_path, change, match):
    options = {"micro_batch_size": 4}
    save = SaveAt("on_validation_end", 0, tmp_path / "end.ckpt")
    fit(build(**options), Recorder(3, tmp_path), tmp_path, callbacks=[save], max_epochs=1)
    for name in ("middle.ckpt", "end.ckpt"):  # Lightning would continue the epoch from both
        with pytest.raises(ValueError, match=match):
            fit(build(**(options | change)), Recorder(), tmp_path, tmp_path / name)


def test_a_trainer_with_another_accumulation_is_refused(tmp_path):
    module = build(micro_batch_size=4)
    with pytest.raises(ValueError, match=r"accumulate_grad_batches is 1 but global batch 8 = "):
        fit(module, Recorder(), tmp_path, accumulate_grad_batches=1)


class Writer(Recorder):
    """Writes the names of the images that its process trained and validated on."""

    def training_step(self, batch, batch_idx):
        self.seen.append((f"train {self.trainer.current_epoch}", batch["name"]))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        self.seen += [("val", part["name"]) for part in batch]

    def on_train_end(self):
        path = self.folder / f"{self.trainer.world_size}_{self.trainer.global_rank}.json"
        path.write_text(json.dumps(self.seen))


def one_then_two_processes(folder):
    for devices in (1, 2):
        module = build(micro_batch_size=2)
        strategy = "ddp_fork" if devices > 1 else "auto"
        plan = module.plan_batches(devices)
        options = {"devices": devices, "strategy": strategy, "accumulate_grad_batches": plan}
        fit(module, Writer(folder=folder), folder, max_epochs=2, **options)


@pytest.mark.slow  # tests/test_console.py trains two processes with the same batches as one
def test_two_real_processes_train_and_validate_on_the_batches_of_one(tmp_path):
    # In a new process: torch forbids a backward pass in a fork of a process that ran parallel ones.
    done = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    def names(process, stage):
        seen = json.loads((tmp_path / f"{process}.json").read_text())
        return [name for kind, batch in seen if kind == stage for name in batch]

    for stage in ("train 0", "train 1"):
        one, first, second = (names(process, stage) for process in ("1_0", "2_0", "2_1"))
        assert len(one) == 24
        for step in range(3):
            halves = (part[4 * step : 4 * step + 4] for part in (first, second))
            assert one[8 * step : 8 * step + 8] == [name for half in halves for name in half]
    assert sorted(names("2_0", "val") + names("2_1", "val")) == sorted(names("1_0", "val"))
    assert len(names("1_0", "val")) == 2 * 5


if __name__ == "__main__":
    one_then_two_processes(Path(sys.argv[1]))
