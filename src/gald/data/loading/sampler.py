"""Which image comes when: a function of the seed and the position in training, of nothing else."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

_PERMUTATION = 1  # keeps this random stream apart from the others that start at the same seed
_RARE = 4  # likewise


class CropRequest(NamedTuple):
    """One training crop to make: all that its augmentation depends on, besides the seed.

    Attributes:
        epoch: travels with the crop into the worker, which may be ahead of the trainer.
        scene: index of the image.
        focus: train id of a class the crop shall hold, or None.
        position: place in the epoch of a crop with a focus, which tells two crops of one scene
            apart; 0 without focus, where each scene comes once.
    """

    epoch: int
    image: int
    target_class: int | None = None
    position: int = 0


class ClassUniform:
    """Replaces a share of the images of an epoch by images drawn by class.

    Each class that occurs is as likely as any other, and then each image that has it: rare classes
    are seen more often. After Zhu et al., "Improving Semantic Segmentation via Video Propagation
    and Label Relaxation", CVPR 2019, who fix the share at a half and centre crops on tiles.

    Args:
        present: (images, classes) bool, which image has which class.
        share: probability that a place in the epoch is drawn by class.
    """

    def __init__(self, present: np.ndarray, share: float) -> None:
        self.share = share
        self.classes = np.flatnonzero(present.any(axis=0))
        self.images = {int(c): np.flatnonzero(present[:, c]) for c in self.classes}

    def replace(self, draws: list[CropRequest], seed: int) -> list[CropRequest]:
        """Draw anew what falls into the share; a function of the seed and the epoch."""
        rng = np.random.default_rng((_RARE, seed, draws[0].epoch))
        return [
            self._draw(draw.epoch, place, rng) if rng.random() < self.share else draw
            for place, draw in enumerate(draws)
        ]

    def _draw(self, epoch: int, place: int, rng: np.random.Generator) -> CropRequest:
        target_class = int(rng.choice(self.classes))
        return CropRequest(
            epoch, int(rng.choice(self.images[target_class])), target_class, place + 1
        )


class GlobalBatchSampler(Sampler[list[CropRequest]]):
    """Cuts one shuffled order of the images into the micro-batches of one process.

    Optimiser step s of an epoch uses images `order[s * G : (s + 1) * G]` of a permutation drawn
    from (seed, epoch). Each of the W processes takes its G / W of them and cuts these into
    micro-batches. So the images of a step are the same for any number of processes, workers or
    accumulated micro-batches. An incomplete last step is dropped.

    Args:
        size: number of images.
        global_batch_size: images of one optimiser step, over all processes and micro-batches.
        micro_batch_size: images one process takes through the network at once.
        seed: what the order is drawn from, together with the epoch.
        rank: this process.
        world_size: number of processes.
        rare: what replaces some images by others that have a rare class.
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
        """Micro-batches of a whole epoch, wherever this one starts."""
        return self.size // self.global_batch_size * self.accumulate

    def __iter__(self) -> Iterator[list[CropRequest]]:
        epoch = self.epoch  # fixed now: a later epoch may be set while this iterator is alive
        order = np.random.default_rng((_PERMUTATION, self.seed, epoch)).permutation(self.size)
        draws = [CropRequest(epoch, int(image)) for image in order]
        if self.class_sampler is not None:
            draws = self.class_sampler.replace(draws, self.seed)
        for batch in range(self.start, len(self)):
            step, micro = divmod(batch, self.accumulate)
            first = step * self.global_batch_size + self.rank * self.share
            first += micro * self.micro_batch_size
            yield draws[first : first + self.micro_batch_size]


class EvalSampler(Sampler[int]):
    """Gives process r of W the images r, r + W, ...: each image once, none repeated as padding.

    Args:
        size: number of images.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
