"""Training loader that resumes at the trainer's position, training crops, and collation."""

import signal
from collections.abc import Callable, Iterator
from itertools import islice
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gald.data.dataset import BaseDataset, Item
from gald.data.loading.copy_paste import CopyPaste
from gald.data.loading.sampler import CropRequest, GlobalBatchSampler
from gald.data.reading.sample_error import SampleError
from gald.run.preemption import SIGNALS

JointTransform = Callable[..., tuple[np.ndarray, np.ndarray]]


class TrainLoader(DataLoader):
    """Loader that reads the position in training when its first batch is requested.

    Lightning creates the iterator before it restores the position of a resumed run, and requests
    the first batch afterwards. `state_dict` has the settings that give the position its meaning:
    a resume within an epoch with other settings is refused, because it would be silently wrong.

    A batch has `pixels` (256,), the number of pixels per label, and `step_pixels`, the same over
    the micro-batches of this process for one optimizer step, so that a loss can be normalised
    before the later ones are computed.

    Args:
        dataset: samples by `CropRequest`.
        batch_sampler: yields the requests of each batch; kept as `keys`.
        position: returns the epoch and the number of its batches that are done.
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
        batches = super().__iter__()
        while step := list(islice(batches, self.keys.accumulate)):
            step_pixels = sum(batch["pixels"] for batch in step)
            for batch in step:
                batch["step_pixels"] = step_pixels
            yield from step

    def state_dict(self) -> dict[str, float]:
        """Return the settings that determine the images of the n-th batch of an epoch."""
        sampler, paste = self.keys, getattr(self.dataset, "paste", None)
        return {
            "seed": sampler.seed,
            "training images": sampler.size,
            "global_batch_size": sampler.global_batch_size,
            "accumulated batches": sampler.accumulate,
            "class_uniform": sampler.class_sampler.share if sampler.class_sampler else 0.0,
            "copy_paste": paste.share if paste else 0.0,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Refuse to resume inside an epoch that was started with other settings.

        For Lightning an epoch lasts until its last hook: it would continue a checkpoint of the
        epoch's final validation with the additional batches of the other settings.

        Raises:
            ValueError: a setting differs.
        """
        for name, now in self.state_dict().items():
            if state.get(name, now) != now:  # an older checkpoint may lack a newer setting
                raise ValueError(
                    f"the checkpoint is inside an epoch started with {name} {state[name]}, but "
                    f"{name} is now {now}; resume with {state[name]}, or start a new run"
                )


class TrainingCrops(Dataset):
    """Transformed training samples by `CropRequest`.

    Args:
        dataset: the training samples.
        transform: joint transform, or None.
        seed: seed of the transform, together with the request.
        paste: pastes pixels of rare classes into some crops, or None; it needs a transform.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        transform: JointTransform | None,
        seed: int,
        paste: CopyPaste | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.paste = paste

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: CropRequest) -> Item:
        if self.transform is None:
            return self.dataset[index.image]
        key = (self.seed, index.epoch, index.image, index.position)
        image, mask = self._crop(self.transform, index.image, key, index.target_class)
        donor = None if self.paste is None else self.paste.draw(key)
        if donor is not None:
            train_id, other = donor
            source, labels = self._crop(self.transform, other, (*key, 1), train_id)
            copied = labels == train_id
            image = np.where(copied[:, :, None], source, image)
            mask = np.where(copied, labels, mask)
        return self.dataset.item(index.image, image, mask)

    def _crop(
        self, transform: JointTransform, index: int, key: tuple[int, ...], train_id: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        image, labels, lut = self.dataset.open(index)
        return transform(image, labels, key, lut, train_id)


def stack(items: list[Item]) -> Item:
    """Stack items of the same size into one batch."""
    sizes = sorted({tuple(item["mask"].shape) for item in items})
    if len(sizes) > 1:
        listed = " and ".join(f"{w}x{h}" for h, w in sizes)
        raise SampleError(
            f"a batch has images of {listed} pixels; set data.train_transform.crop_size"
        )
    return {
        "image": torch.stack([item["image"] for item in items]),
        "mask": torch.stack([item["mask"] for item in items]),
        "name": [item["name"] for item in items],
    }


def stack_training(items: list[Item]) -> Item:
    """Stack items of the same size into one batch, and count the pixels of each label."""
    batch = stack(items)
    counts = np.bincount(batch["mask"].numpy().ravel(), minlength=256)
    return batch | {"pixels": torch.from_numpy(counts)}


def stack_by_size(items: list[Item | None]) -> list[Item]:
    """Stack items into one batch per image size, so that none is padded or resized.

    A process without an image has None, and gets no batch.
    """
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item in filter(None, items):
        groups.setdefault(tuple(item["mask"].shape), []).append(item)
    return [stack(group) for group in groups.values()]


def start_worker(worker: int) -> None:
    """Limit OpenCV to one thread in a worker, and leave signals to the main process.

    Terminals and clusters send them to all processes of a job. A worker that died of one would end
    the run with an error, before it has saved.
    """
    for number in (signal.SIGINT, *SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_next)
    cv2.setNumThreads(0)  # threads of several workers would compete for the cores


def _end_at_the_next(number: int, frame: FrameType | None) -> None:
    """Ignore the first SIGTERM; the main process sends one more to a worker that does not end."""
    signal.signal(number, signal.SIG_DFL)
