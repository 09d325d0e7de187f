"""Samplers: the order of images depends only on the seed and the position in training."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler, SequentialSampler

_PERMUTATION = 1  # separates this random stream from others with the same seed
_BY_CLASS = 4  # likewise


class CropRequest(NamedTuple):
    """Request for one training crop: everything its augmentation depends on, except the seed.

    Attributes:
        epoch: epoch of the crop; the worker needs it because it may be ahead of the trainer.
        image: index of the image.
        target_class: train id of a class that the crop must contain, or None.
        position: position in the epoch of a crop with a target class, which distinguishes several
            crops of one image; 0 without target class, because then each image occurs once.
    """

    epoch: int
    image: int
    target_class: int | None = None
    position: int = 0


class ClassUniform:
    """Sampler that replaces a fraction of the images of an epoch by images drawn by class.

    First a class is drawn uniformly from those that occur, then an image uniformly from those that
    contain it, so rare classes are seen more often. After Zhu et al., "Improving Semantic
    Segmentation via Video Propagation and Label Relaxation", CVPR 2019. Deviation: their fraction
    is fixed at a half, and their crops are centred on tiles.

    Args:
        present: (images, classes) bool, whether an image contains a class.
        share: probability that a position in the epoch is drawn by class.
    """

    def __init__(self, present: np.ndarray, share: float) -> None:
        self.share = share
        self.classes = np.flatnonzero(present.any(axis=0))
        self.images = {int(c): np.flatnonzero(present[:, c]) for c in self.classes}

    def replace(self, draws: list[CropRequest], seed: int) -> list[CropRequest]:
        """Replace random requests by others drawn by class; depends on seed and epoch."""
        rng = np.random.default_rng((_BY_CLASS, seed, draws[0].epoch))
        return [
            self._draw(draw.epoch, position, rng) if rng.random() < self.share else draw
            for position, draw in enumerate(draws, start=1)
        ]

    def _draw(self, epoch: int, position: int, rng: np.random.Generator) -> CropRequest:
        target_class = int(rng.choice(self.classes))
        image = int(rng.choice(self.images[target_class]))
        return CropRequest(epoch, image, target_class, position)


class GlobalBatchSampler(Sampler[list[CropRequest]]):
    """Sampler that splits one shuffled order of the images into micro-batches of one process.

    Optimiser step s of an epoch uses images `order[s * G : (s + 1) * G]` of a permutation drawn
    from (seed, epoch). Each of the W processes takes its G / W of them, in micro-batches. So the
    images of a step are the same for any number of processes, workers or accumulated
    micro-batches. An incomplete last step is dropped.

    Args:
        size: number of images.
        global_batch_size: images per optimiser step, over all processes and micro-batches.
        micro_batch_size: images in one forward pass of one process.
        seed: seed of the order, together with the epoch.
        rank: rank of this process.
        world_size: number of processes.
        class_sampler: replaces some images by others drawn by class; None replaces none.
    """

    def __init__(
        self,
        size: int,
        global_batch_size: int,
        micro_batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        class_sampler: ClassUniform | None = None,
    ) -> None:
        if size < global_batch_size:
            raise ValueError(
                f"the training set has {size} images but data.global_batch_size is "
                f"{global_batch_size}; lower data.global_batch_size to {size} or less"
            )
        self.size = size
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.seed = seed
        self.rank = rank
        self.class_sampler = class_sampler
        self.share = global_batch_size // world_size
        self.accumulate = self.share // micro_batch_size
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Number of micro-batches of a whole epoch, independent of `start`."""
        return self.size // self.global_batch_size * self.accumulate

    def __iter__(self) -> Iterator[list[CropRequest]]:
        epoch = self.epoch  # copied: the next epoch may be set while this iterator is in use
        order = np.random.default_rng((_PERMUTATION, self.seed, epoch)).permutation(self.size)
        draws = [CropRequest(epoch, int(image)) for image in order]
        if self.class_sampler is not None:
            draws = self.class_sampler.replace(draws, self.seed)
        for batch in range(self.start, len(self)):
            step, micro = divmod(batch, self.accumulate)
            first = step * self.global_batch_size + self.rank * self.share
            first += micro * self.micro_batch_size
            yield draws[first : first + self.micro_batch_size]


class EvalSampler(SequentialSampler):
    """Sampler that gives process r of W the images r, r + W, ...; no image is repeated as padding.

    Lightning would replace another kind of sampler under `trainer.overfit_batches`.

    Args:
        size: number of images.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)
        super().__init__(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
