"""What runs in the loader: training scenes by key, batches, and the place in training."""

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gald.data.dataset import BaseDataset, Item
from gald.data.loading.sampler import CropRequest, GlobalBatchSampler
from gald.data.reading.files import SampleError

JointTransform = Callable[..., tuple[np.ndarray, np.ndarray]]


class TrainLoader(DataLoader):
    """A loader that finds its place in training when its first batch is asked for.

    Lightning makes the iterator before it has settled where a resumed run stands, and asks for the
    first batch after. `state_dict` holds what the position means, so that a resume within an epoch
    under other numbers is refused and not silently wrong.

    Args:
        dataset: scenes by key (epoch, index).
        batch_sampler: which keys form a batch.
        position: tells the epoch and the batches of it that are done.
        options: further arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_sampler: GlobalBatchSampler,
        position: Callable[[], tuple[int, int]],
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, **options)
        self.keys = batch_sampler
        self.position = position

    def __iter__(self) -> Iterator[Item]:  # ty: ignore[incompatible-method-override]
        self.keys.epoch, self.keys.start = self.position()
        yield from super().__iter__()

    def state_dict(self) -> dict[str, float]:
        """The numbers under which a count of batches names certain images."""
        keys = self.keys
        return {
            "seed": keys.seed,
            "training images": keys.size,
            "global_batch_size": keys.global_batch_size,
            "accumulated batches": keys.accumulate,
            "class_uniform": keys.class_sampler.share if keys.class_sampler else 0.0,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Refuse to go on inside an epoch that was begun under other numbers.

        Lightning counts an epoch as begun until its last hook, and would run a checkpoint of its
        final validation on into the batches that other numbers add.
        """
        for name, now in self.state_dict().items():
            if state.get(name, now) != now:  # an older checkpoint may lack a newer number
                raise ValueError(
                    f"the checkpoint lies within an epoch begun with {state[name]} {name}, "
                    f"now it is {now}; resume with {state[name]}, or start a new run"
                )


class TrainingCrops(Dataset):
    """Training scenes by `CropRequest`, transformed."""

    def __init__(self, dataset: BaseDataset, transform: JointTransform | None, seed: int) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: CropRequest) -> Item:
        if self.transform is None:
            return self.dataset[index.image]
        image, labels, lut = self.dataset.open(index.image)
        key = (self.seed, index.epoch, index.image, index.position)
        image, mask = self.transform(image, labels, key, lut, index.target_class)
        return self.dataset.item(index.image, image, mask)


def stack(items: list[Item]) -> Item:
    """One batch of scenes of one size."""
    sizes = sorted({tuple(item["mask"].shape) for item in items})
    if len(sizes) > 1:
        listed = " and ".join(f"{w}x{h}" for h, w in sizes)
        raise SampleError(
            f"a batch holds scenes of {listed} pixels; give data.train_transform a crop_size"
        )
    return {
        "image": torch.stack([item["image"] for item in items]),
        "mask": torch.stack([item["mask"] for item in items]),
        "name": [item["name"] for item in items],
    }


def stack_by_size(items: list[Item]) -> list[Item]:
    """One batch for each size among the scenes, so that none is padded or resized."""
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(tuple(item["mask"].shape), []).append(item)
    return [stack(group) for group in groups.values()]


def one_thread(worker: int) -> None:
    """Keep a worker on one thread."""
    cv2.setNumThreads(0)  # workers are the parallelism; threads in each would fight for the cores
