"""Which image comes when: a function of the seed and the position in training, of nothing else."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

_PERMUTATION = 1  # keeps this random stream apart from the others that start at the same seed


class GlobalBatchSampler(Sampler[list[tuple[int, int]]]):
    """Cuts one shuffled order of the images into the micro-batches of one process.

    Optimiser step s of an epoch uses images `order[s * G : (s + 1) * G]` of a permutation drawn
    from (seed, epoch). Each of the W processes takes its G / W of them and cuts these into
    micro-batches. So the images of a step are the same for any number of processes, workers or
    accumulated micro-batches. An incomplete last step is dropped.

    It yields keys (epoch, index): the epoch travels with the image into the worker, which may be
    ahead of the trainer and may outlive the epoch.

    Args:
        size: number of images.
        global_batch_size: images of one optimiser step, over all processes and micro-batches.
        micro_batch_size: images one process takes through the network at once.
        seed: what the order is drawn from, together with the epoch.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        size: int,
        global_batch_size: int,
        micro_batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
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
        self.share = global_batch_size // world_size
        self.accumulate = self.share // micro_batch_size
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Micro-batches of a whole epoch, wherever this one starts."""
        return self.size // self.global_batch_size * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((_PERMUTATION, self.seed, self.epoch))
        order = rng.permutation(self.size)
        epoch = self.epoch  # fixed now: a later epoch may be set while this iterator is alive
        for batch in range(self.start, len(self)):
            step, micro = divmod(batch, self.accumulate)
            first = step * self.global_batch_size + self.rank * self.share
            first += micro * self.micro_batch_size
            yield [(epoch, int(i)) for i in order[first : first + self.micro_batch_size]]


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
