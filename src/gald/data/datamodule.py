"""The data module behind every dataset: batches that depend on the seed and the step alone."""

from abc import ABC, abstractmethod
from typing import Any, TypedDict, Unpack

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from gald.data.dataset import BaseDataset, SegmentationDataset
from gald.data.loading.cache import cached
from gald.data.loading.class_counts import class_counts
from gald.data.loading.loader import (
    JointTransform,
    TrainingCrops,
    TrainLoader,
    one_thread,
    stack,
    stack_by_size,
)
from gald.data.loading.sampler import ClassUniform, EvalSampler, GlobalBatchSampler


class Loading(TypedDict, total=False):
    """The keys that every data module takes besides its own; see `SegmentationDataModule`."""

    train_transform: JointTransform | None
    global_batch_size: int
    micro_batch_size: int | None
    eval_batch_size: int
    num_workers: int
    seed: int
    cache: str
    cache_dir: str
    class_uniform: float


class SegmentationDataModule(pl.LightningDataModule, ABC):
    """Serves a dataset's train, val and test scenes as uint8 batches.

    A dataset's module sets `dataset_class` and writes `make_dataset`. `global_batch_size` is the
    number of images behind one optimiser step; the per-device batch and the accumulation follow
    from it and the number of devices (`plan_batches`).

    `has_test` says whether the labels of a test split are public.

    The same seed gives bit-equal batches for any number of workers and processes, and after a
    resume at any batch: order and augmentation are keyed by (seed, epoch, index), and the position
    is read from the trainer when the first batch of an epoch is asked for, when Lightning has
    restored it. The trainer needs `use_distributed_sampler=False`.

    Args:
        train_transform: joint transform of training scenes, called as `TrainTransform`; null leaves
            them as they are, then all must have one size.
        global_batch_size: images of one optimiser step, over all devices.
        micro_batch_size: most images a device takes at once; null takes its whole share.
        eval_batch_size: images of one validation or test batch on one device.
        num_workers: processes that load, for each of train, val and test.
        seed: what order and augmentation are drawn from.
        cache: `none`; `ram`, train and val scenes decoded in memory; or `decoded`, in a file that
            is mapped into memory and that later runs find again.
        cache_dir: where decoded scenes and class counts are kept.
        class_uniform: share of the training crops that are drawn by class instead of by image: a
            class, an image that has it and a crop that holds one of its pixels, each uniformly.
    """

    dataset_class: type[BaseDataset]
    has_test: bool = True

    def __init__(
        self,
        train_transform: JointTransform | None = None,
        global_batch_size: int = 8,
        micro_batch_size: int | None = None,
        eval_batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
        cache: str = "none",
        cache_dir: str = "~/.cache/gald",
        class_uniform: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("global_batch_size", global_batch_size),
            ("micro_batch_size", 1 if micro_batch_size is None else micro_batch_size),
            ("eval_batch_size", eval_batch_size),
        ):
            if value < 1:
                raise ValueError(f"data.{name} is {value}; it must be at least 1")
        if not 0 <= class_uniform <= 1:
            raise ValueError(
                f"data.class_uniform is {class_uniform}; it must be a share from 0 to 1"
            )
        self.train_transform = train_transform
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.cache = cache
        self.cache_dir = cache_dir
        self.class_uniform = class_uniform
        self.train_dataset: BaseDataset | None = None
        self.val_dataset: BaseDataset | None = None
        self.test_dataset: BaseDataset | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by train id."""
        return self.dataset_class.class_names

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours of the classes, by train id."""
        return self.dataset_class.palette

    @property
    def num_classes(self) -> int:
        """Number of classes, void not counted."""
        return len(self.class_names)

    @abstractmethod
    def make_dataset(self, split: str) -> BaseDataset:
        """Build the scenes of `train`, `val` or `test`; each dataset's module writes this."""

    def setup(self, stage: str | None = None) -> None:
        """Build the datasets a stage needs (`fit`, `validate`, `test`; None is all), once."""
        if stage in (None, "fit") and self.train_dataset is None:
            self.train_dataset = cached(self.make_dataset("train"), self.cache, self.cache_dir)
        if stage in (None, "fit", "validate") and self.val_dataset is None:
            self.val_dataset = cached(self.make_dataset("val"), self.cache, self.cache_dir)
        if stage in (None, "test") and self.has_test and self.test_dataset is None:
            self.test_dataset = self.make_dataset("test")

    def plan_batches(self, world_size: int = 1) -> int:
        """Derive the per-device batch, and return how many batches a device accumulates."""
        return self._plan(world_size)[1]

    def batch_sentence(self, world_size: int = 1) -> str:
        """Say how the global batch comes about, for the log."""
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
                f"the {share} images a device takes of each global batch must be divisible by "
                f"data.micro_batch_size ({micro}); choose a divisor of {share}"
            )
        return micro, share // micro

    def train_dataloader(self) -> TrainLoader:
        """Shuffled and augmented micro-batches, from where the trainer stands."""
        rank, world_size = self._place()
        micro, accumulate = self._plan(world_size)
        if self.trainer is not None and self.trainer.accumulate_grad_batches != accumulate:
            raise ValueError(
                f"trainer.accumulate_grad_batches is {self.trainer.accumulate_grad_batches} but "
                f"{self.batch_sentence(world_size)}; set it to plan_batches({world_size})"
            )
        assert self.train_dataset is not None, "setup('fit') comes first"
        class_sampler = None
        if self.class_uniform:
            counts = class_counts(self.train_dataset, self.cache_dir)
            class_sampler = ClassUniform(counts > 0, self.class_uniform)
        size = len(self.train_dataset)
        sampler = GlobalBatchSampler(
            size, self.global_batch_size, micro, self.seed, rank, world_size, class_sampler
        )
        dataset = TrainingCrops(self.train_dataset, self.train_transform, self.seed)
        return TrainLoader(
            dataset, sampler, self._position, collate_fn=stack, **self._loader_options()
        )

    def val_dataloader(self) -> DataLoader:
        """This process's share of the validation scenes, whole, as lists of one batch a size."""
        return self._eval_loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        """This process's share of the test scenes, whole, as lists of one batch a size."""
        return self._eval_loader(self.test_dataset)

    def _eval_loader(self, dataset: BaseDataset | None) -> DataLoader:
        assert dataset is not None, "setup comes first"
        rank, world_size = self._place()
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=EvalSampler(len(dataset), rank, world_size),
            collate_fn=stack_by_size,
            **self._loader_options(),
        )

    def _loader_options(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": trainer is not None and trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": one_thread,
            # its own, so that loading takes no number from the stream that feeds dropout
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _position(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 0
        # Not the epochs "processed", as Lightning tells samplers: after a resume at an epoch's end
        # under max_steps that count is one ahead.
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        return self.trainer.current_epoch, batches.current.ready


class DatasetDataModule(SegmentationDataModule):
    """Serves a dataset of files; its own module sets `dataset_class`, and `has_test` if need be.

    Args:
        root: folder of the dataset.
        train_split: what to train on, as one part or joined ones, `train+val`.
        loading: as in `SegmentationDataModule`.
    """

    dataset_class: type[SegmentationDataset]  # ty: ignore[incompatible-mutable-override]

    def __init__(self, root: str, train_split: str = "train", **loading: Unpack[Loading]) -> None:
        super().__init__(**loading)
        self.root = root
        self.train_split = train_split

    def make_dataset(self, split: str) -> SegmentationDataset:
        """List the scenes of one split."""
        return self.dataset_class(self.root, self.train_split if split == "train" else split)
