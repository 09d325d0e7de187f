"""Options of a probe: the section `probe` of its config."""

from dataclasses import dataclass

from gald.options.ranges import Count, Fraction, Size


@dataclass(frozen=True)
class Probe:
    """How images become features, and how long a cell trains on them.

    Args:
        size: height and width to which images and masks are resized, for training and evaluation.
        steps: optimizer steps of a cell.
        batch_size: images of a step.
        flip: probability that the mirror image is used; 0 also halves the file of features.
        crop: height and width of the part of an image that is used, multiples of the backbone's
            largest stride; null uses whole images.
        cache_dir: folder of the file of features.
        keep_networks: whether a cell's folder also has its whole network, for `gald viz` and
            `gald predict`.
    """

    size: Size
    steps: Count = 150
    batch_size: Count = 12
    flip: Fraction = 0.5
    crop: Size | None = None
    cache_dir: str = "~/.cache/gald"
    keep_networks: bool = False
