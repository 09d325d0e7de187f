"""Pixels of rare classes that are copied from other images into training crops."""

import numpy as np

_PASTE = 5  # separates this random stream from others with the same seed


class CopyPaste:
    """Choice of the crops that get the pixels of a rare class from another image.

    The rarer half of the classes that occur, by pixels, is copied. For a crop that is chosen, one
    of them is drawn uniformly, then uniformly an image that contains it. A crop of that image with
    a pixel of the class is made, and all pixels of the class in it replace those of the crop, image
    and labels, at the same places. The draw depends only on the key of the crop.

    After "ClassMix", https://arxiv.org/abs/2007.07936, which copies half of the classes of an
    unlabelled image by their predictions. Deviations: labels instead of predictions, and one rare
    class at a time.

    Args:
        pixels: (images, classes) pixels of each class in each image.
        share: probability that a crop is chosen.
    """

    def __init__(self, pixels: np.ndarray, share: float) -> None:
        self.share = share
        total = pixels.sum(axis=0)
        present = np.flatnonzero(total)
        ranked = present[np.argsort(total[present], kind="stable")]
        self.classes = np.sort(ranked[: (len(ranked) + 1) // 2])
        self.images = {int(k): np.flatnonzero(pixels[:, k]) for k in self.classes}

    def draw(self, key: tuple[int, ...]) -> tuple[int, int] | None:
        """Return a class and the index of an image with it; None for crops that are not chosen.

        Args:
            key: (seed, epoch, image, ...) of the crop.
        """
        rng = np.random.default_rng((_PASTE, *key))
        if rng.random() >= self.share or not len(self.classes):
            return None
        train_id = int(rng.choice(self.classes))
        return train_id, int(rng.choice(self.images[train_id]))
