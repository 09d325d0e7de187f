"""Base data modules: uint8 batches that depend only on the seed and the step."""

from abc import ABC, abstractmethod
from typing import Any, Literal, TypedDict, Unpack, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from gald.data.checks import check_splits
from gald.data.dataset import BaseDataset, SegmentationDataset
from gald.data.groups import check_groups, groups_of
from gald.data.loading.cache import cached
from gald.data.loading.class_counts import class_counts
from gald.data.loading.copy_paste import CopyPaste
from gald.data.loading.loader import (
    JointTransform,
    TrainingCrops,
    TrainLoader,
    stack_by_size,
    stack_training,
    start_worker,
)
from gald.data.loading.sampler import ClassUniform, EvalSampler, GlobalBatchSampler
from gald.options.ranges import Count, Fraction, Seed, Workers


class Loading(TypedDict, total=False):
    """Keyword arguments that every data module accepts; see `SegmentationDataModule`."""

    train_transform: JointTransform | None
    global_batch_size: Count
    micro_batch_size: Count | None
    eval_batch_size: Count
    num_workers: Workers
    seed: Seed
    cache: Literal["none", "ram", "decoded"]
    cache_dir: str
    class_uniform: Fraction
    copy_paste: Fraction


class SegmentationDataModule(pl.LightningDataModule, ABC):
    """Data module that serves the train, val and test samples of a dataset as uint8 batches.

    A subclass sets `dataset_class` and defines `make_dataset`. `global_batch_size` is the number of
    images per optimiser step; the per-device batch and the accumulation follow from it and the
    number of devices (`plan_batches`).

    The same seed gives bit-equal batches for any number of workers and processes, and after a
    resume at any batch: order and augmentation are keyed by (seed, epoch, index). Under
    `trainer.overfit_batches` every epoch repeats the first. The position is
    read from the trainer at the first batch of an epoch, after Lightning has restored it. The
    trainer needs `use_distributed_sampler=False`.

    Args:
        train_transform: joint transform of training samples, called like `TrainTransform`; null
            leaves them unchanged, then all must have the same size.
        global_batch_size: images per optimiser step, over all devices.
        micro_batch_size: largest number of images in one forward pass of a device; null is the
            device's whole share.
        eval_batch_size: images of one validation or test batch on one device.
        num_workers: loader processes for each of train, val and test.
        seed: seed of order and augmentation.
        cache: `none`; `ram` keeps decoded train and val samples in memory; `decoded` keeps them in
            a memory-mapped file that later runs reuse.
        cache_dir: folder for decoded samples and class counts.
        class_uniform: fraction of the training crops that are drawn by class instead of by image: a
            class, an image with this class and a crop with one of its pixels, each uniformly.
        copy_paste: fraction of the training crops that get all pixels of a rare class from a crop
            of another image; see `gald.data.loading.copy_paste.CopyPaste`.

    Attributes:
        dataset_class: class of the datasets; its class names and palette are used before `setup`.
        has_test: whether the labels of the test split are public.
    """

    dataset_class: type[BaseDataset]
    has_test: bool = True

    def __init__(
        self,
        train_transform: JointTransform | None = None,
        global_batch_size: Count = 8,
        micro_batch_size: Count | None = None,
        eval_batch_size: Count = 1,
        num_workers: Workers = 2,
        seed: Seed = 0,
        cache: Literal["none", "ram", "decoded"] = "none",
        cache_dir: str = "~/.cache/gald",
        class_uniform: Fraction = 0.0,
        copy_paste: Fraction = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("global_batch_size", global_batch_size),
            ("micro_batch_size", 1 if micro_batch_size is None else micro_batch_size),
            ("eval_batch_size", eval_batch_size),
        ):
            if value < 1:
                raise ValueError(f"data.{name} is {value}; it must be at least 1")
        for name, share in (("class_uniform", class_uniform), ("copy_paste", copy_paste)):
            if not 0 <= share <= 1:
                raise ValueError(f"data.{name} is {share}; it must be a fraction from 0 to 1")
        self.train_transform = train_transform
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.cache = cache
        self.cache_dir = cache_dir
        self.class_uniform = class_uniform
        self.copy_paste = copy_paste
        self.train_dataset: BaseDataset | None = None
        self.val_dataset: BaseDataset | None = None
        self.test_dataset: BaseDataset | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by train id."""
        return self.dataset_class.class_names

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours by train id."""
        return self.dataset_class.palette

    @property
    def num_classes(self) -> int:
        """Number of classes without void."""
        return len(self.class_names)

    @abstractmethod
    def make_dataset(self, split: str) -> BaseDataset:
        """Build the dataset of `train`, `val` or `test`."""

    def setup(self, stage: str | None = None) -> None:
        """Build the datasets of a stage (`fit`, `validate`, `test`; None is all), once."""
        if stage in (None, "fit") and self.train_dataset is None:
            self.train_dataset = cached(self.make_dataset("train"), self.cache, self.cache_dir)
        if stage in (None, "fit", "validate") and self.val_dataset is None:
            self.val_dataset = cached(self.make_dataset("val"), self.cache, self.cache_dir)
        if stage in (None, "test") and self.has_test and self.test_dataset is None:
            self.test_dataset = self.make_dataset("test")

    def image_groups(self, split: str) -> dict[str, str] | None:
        """Return the group of each image of `val` or `test` by its name; None without groups.

        Raises:
            ValueError: an image has no group.
        """
        self.setup({"val": "validate", "test": "test"}[split])
        dataset = {"val": self.val_dataset, "test": self.test_dataset}[split]
        assert dataset is not None, f"{type(self).__name__} has no split {split}"
        groups = self.groups_in(dataset)
        if groups is None:
            return None
        return dict(zip(map(dataset.image_name, range(len(dataset))), groups, strict=True))

    def groups_in(self, dataset: BaseDataset) -> list[str] | None:
        """Return the group of each image of a split, by index.

        None says that the images are independent, as here; a subclass may know groups.
        """
        return None

    def check(self, test: bool = False) -> None:
        """Refuse faulty data before the first step, after `setup("fit")`.

        It looks at what listing, headers and a few masks show; `gald data verify` decodes all.

        Args:
            test: whether the training reports the test split at its end.

        Raises:
            ValueError: `copy_paste` has no transform to make crops, or an image has no group.
            SampleError: one sentence with the file or split, the cause and the remedy.
            FileNotFoundError: the test split does not exist.
        """
        if self.copy_paste and self.train_transform is None:
            raise ValueError(
                f"data.copy_paste={self.copy_paste} needs crops of one size, but "
                "data.train_transform is null; set data.copy_paste=0.0, or keep the transform"
            )
        if test:
            self.setup("test")
        splits = {"train": self.train_dataset, "val": self.val_dataset, "test": self.test_dataset}
        check_splits({name: dataset for name, dataset in splits.items() if dataset is not None})
        for split in ("val", *(["test"] if test else [])):
            self.image_groups(split)

    def plan_batches(self, world_size: int = 1) -> int:
        """Return how many micro-batches a device accumulates per optimiser step."""
        return self._plan(world_size)[1]

    def batch_sentence(self, world_size: int = 1) -> str:
        """Describe the global batch as devices x images x accumulated batches, for the log."""
        micro, accumulate = self._plan(world_size)
        devices = "1 device" if world_size == 1 else f"{world_size} devices"
        images = "1 image" if micro == 1 else f"{micro} images"
        parts = f"{devices} x {images} x {accumulate} accumulated"
        return f"global batch {self.global_batch_size} = {parts}"

    def _plan(self, world_size: int) -> tuple[int, int]:
        share, rest = divmod(self.global_batch_size, world_size)
        if rest or not share:
            raise ValueError(
                f"data.global_batch_size ({self.global_batch_size}) must be divisible by the "
                f"number of devices ({world_size}); choose a multiple of {world_size}"
            )
        micro = share if self.micro_batch_size is None else min(self.micro_batch_size, share)
        if share % micro:
            raise ValueError(
                f"the {share} images per device of each global batch must be divisible by "
                f"data.micro_batch_size ({micro}); choose a divisor of {share}"
            )
        return micro, share // micro

    def train_dataloader(self) -> TrainLoader:
        """Loader of shuffled and augmented micro-batches, from the trainer's position."""
        rank, world_size = self._rank_and_world_size()
        accumulate = self._plan(world_size)[1]
        if self.trainer is not None and self.trainer.accumulate_grad_batches != accumulate:
            raise ValueError(
                f"trainer.accumulate_grad_batches is {self.trainer.accumulate_grad_batches} but "
                f"{self.batch_sentence(world_size)}; set it to plan_batches({world_size})"
            )
        return TrainLoader(
            self.crops(),
            self.requests(rank, world_size),
            self._position,
            collate_fn=stack_training,
            **self._loader_options(),
        )

    def crops(self) -> TrainingCrops:
        """The crops of the training, by request, after `setup("fit")`."""
        dataset = self._train_samples()
        paste = None
        if self.copy_paste:
            paste = CopyPaste(class_counts(dataset, self.cache_dir), self.copy_paste)
        return TrainingCrops(dataset, self.train_transform, self.seed, paste)

    def requests(self, rank: int = 0, world_size: int = 1) -> GlobalBatchSampler:
        """The requests of each batch of a process, after `setup("fit")`."""
        dataset, class_sampler = self._train_samples(), None
        if self.class_uniform:
            counts = class_counts(dataset, self.cache_dir)
            class_sampler = ClassUniform(counts > 0, self.class_uniform)
        return GlobalBatchSampler(
            len(dataset),
            self.global_batch_size,
            self._plan(world_size)[0],
            self.seed,
            rank,
            world_size,
            class_sampler,
        )

    def _train_samples(self) -> BaseDataset:
        assert self.train_dataset is not None, "call setup('fit') first"
        return self.train_dataset

    def val_dataloader(self) -> DataLoader:
        """Loader of this process's val samples, uncropped, as lists of one batch per size."""
        return self._eval_loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        """Loader of this process's test samples, uncropped, as lists of one batch per size."""
        return self._eval_loader(self.test_dataset)

    def _eval_loader(self, dataset: BaseDataset | None) -> DataLoader:
        assert dataset is not None, "call setup first"
        rank, world_size = self._rank_and_world_size()
        images: Any = dataset
        sampler = EvalSampler(len(dataset), rank, world_size)
        if not len(sampler):  # more processes than images: one batch without any
            images, sampler = cast(Any, [None]), EvalSampler(1)
        return DataLoader(
            images,
            batch_size=self.eval_batch_size,
            sampler=sampler,
            collate_fn=stack_by_size,
            **self._loader_options(),
        )

    def _loader_options(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": trainer is not None and trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": start_worker,
            # separate, so that loading does not advance the global random stream of dropout
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _rank_and_world_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _position(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 0
        # Lightning gives samplers the number of processed epochs, which is one too high after a
        # resume at an epoch's end under max_steps.
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        overfit = self.trainer.overfit_batches > 0  # ty: ignore[missing-attribute]
        return 0 if overfit else self.trainer.current_epoch, batches.current.ready


class DatasetDataModule(SegmentationDataModule):
    """Data module of a dataset of files; a subclass sets `dataset_class`, and `has_test` if False.

    Args:
        root: folder of the dataset.
        train_split: split to train on, or several joined by `+`, e.g. `train+val`.
        groups: how the path of an image names the video, city or place that it shares with others;
            see `gald.data.groups`. None for independent images.
        loading: see `SegmentationDataModule`.
    """

    dataset_class: type[SegmentationDataset]  # ty: ignore[incompatible-mutable-override]

    def __init__(
        self,
        root: str,
        train_split: str = "train",
        groups: str | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(**loading)
        check_groups(groups)
        self.root = root
        self.train_split = train_split
        self.groups = groups

    def make_dataset(self, split: str) -> SegmentationDataset:
        """List the samples of one split."""
        return self.dataset_class(self.root, self.train_split if split == "train" else split)

    def groups_in(self, dataset: BaseDataset) -> list[str] | None:
        """Return the group of each image of a split, by index; None without `groups`.

        Raises:
            ValueError: `groups` gives no name for an image.
        """
        if self.groups is None:
            return None
        return groups_of([dataset.image_path(i) for i in range(len(dataset))], self.groups)
