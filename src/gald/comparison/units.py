"""What a bootstrap draws: images, groups of images, or blocks of images in a row.

Images that belong together (frames of a video, photographs of a place) are hard or easy together.
Drawn one by one as if they were independent, they make an interval too narrow; so they are drawn
together. Groups speak for other groups only if there are many. A few videos are cut in blocks of
frames instead, which are long enough to be almost independent of each other; the intervals then
speak of these videos only.

Paper: "The jackknife and the bootstrap for general stationary observations", Künsch 1989; here the
blocks do not overlap.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ENOUGH = 30  # images; fewer give no verdict
MANY = 10  # groups; fewer say nothing of others
BLOCK = 20  # images: frames of CamVid so far apart are no longer alike


class Units(NamedTuple):
    """Units of a bootstrap.

    Attributes:
        of_image: unit of each image, from 0 on (N,).
        count: number of units.
        groups: number of groups; 0 if the images have none.
        block: number of images in a block, about; 0 for whole groups or single images.
    """

    of_image: np.ndarray
    count: int
    groups: int
    block: int

    @classmethod
    def of(
        cls, names: Sequence[str], groups: Sequence[str] | None, block: int | None = None
    ) -> "Units":
        """Choose the units of some images.

        Args:
            names: name of each image; numbers in it give the order within a group.
            groups: group of each image, or None.
            block: images in a block; None: whole groups if they are many, blocks of 20 if they are
                few, and single images without groups.

        Raises:
            ValueError: the block is below 1, or makes fewer than two blocks.
        """
        if block is not None and block < 1:
            raise ValueError(f"--block is {block}; it must be 1 or more, as in --block {BLOCK}")
        count = len(set(groups)) if groups is not None else 0
        if block is None and (groups is None or count == len(names)):
            return cls(np.arange(len(names)), len(names), count, 0)
        if block is None and groups is not None and count >= MANY:
            return cls(np.unique(np.array(groups), return_inverse=True)[1], count, count, 0)
        # A quarter of a small set, so that there are blocks to draw from.
        length = block or min(BLOCK, max(1, len(names) // 4))
        members: dict[str, list[int]] = {}
        order = sorted(range(len(names)), key=lambda image: _in_order(names[image]))
        for image in order:
            members.setdefault("" if groups is None else groups[image], []).append(image)
        of_image, found = np.empty(len(names), int), 0
        for images in members.values():
            for part in np.array_split(images, max(1, round(len(images) / length))):
                of_image[part] = found
                found += 1
        if found < 2:
            raise ValueError(
                f"--block {length} makes one block of {len(names)} images, and nothing can be "
                f"drawn from it; take --block {max(1, len(names) // 4)} or less"
            )
        # A block is no longer than its group.
        return cls(of_image, found, count, min(length, max(map(len, members.values()))))

    def sums(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the images (N, ...) of each unit: (count, ...)."""
        if self.count == len(self.of_image):
            return counts
        order = np.argsort(self.of_image, kind="stable")
        starts = np.searchsorted(self.of_image[order], np.arange(self.count))
        return np.add.reduceat(counts[order], starts, axis=0)

    @property
    def words(self) -> str:
        """What was drawn, and the population that the intervals describe."""
        images = f"{len(self.of_image)} images"
        few = f"{self.groups} group{'s' if self.groups > 1 else ''}"
        if self.block:
            where = f" in {few}" if self.groups else " in the order of their names"
            drawn = f"{self.count} blocks of about {self.block} of the {images}{where} were drawn"
            if not self.groups:
                return f"{drawn}; the intervals speak of more images of the same places."
            if self.groups >= MANY:
                return f"{drawn}; the intervals speak of more images of these {few}."
            return (
                f"{drawn}. {few.capitalize()} cannot support a claim about other places or videos "
                f"({MANY} or more can): the intervals speak of more images of "
                f"{'this group' if self.groups == 1 else f'these {few}'}."
            )
        if not self.groups:
            return (
                f"The {images} were drawn one by one, as if they were independent, because they "
                "have no groups (data.groups). Frames of a video or photographs of one place are "
                f"not independent: then use --block {BLOCK}, or the intervals are too narrow."
            )
        if self.count == len(self.of_image) > 1 and self.groups == self.count:
            return f"The {images} were drawn, each a group of its own."
        return (
            f"{self.groups} groups of images, {images} in all, were drawn as wholes; the intervals "
            "speak of other groups like these."
        )


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts frame_9 before frame_10."""
    parts = re.split(r"([0-9]+)", name)  # every second part is a number
    return [(int(part) if place % 2 else 0, part) for place, part in enumerate(parts)]
