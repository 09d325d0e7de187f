"""Which maps of the neck a head reads, by their strides."""

from collections.abc import Sequence


def fine_level(in_strides: Sequence[int], low_stride: int) -> int:
    """Return the index of the finest map with a stride.

    Raises:
        ValueError: no map has it.
    """
    if low_stride not in in_strides:
        raise ValueError(
            f"low_stride ({low_stride}) is not among the backbone's strides "
            f"{tuple(in_strides)}; set model.head.low_stride to one of them"
        )
    return list(in_strides).index(low_stride)


def levels_above(in_strides: Sequence[int], min_stride: int) -> list[int]:
    """Return the indices of the maps with at least a stride, but for the last, which x replaces.

    Raises:
        ValueError: there is none.
    """
    levels = [i for i, stride in enumerate(in_strides[:-1]) if stride >= min_stride]
    if not levels:
        coarsest = max(in_strides[:-1], default=None)
        lower = "" if coarsest is None else f"model.head.min_stride={coarsest} or "
        raise ValueError(
            f"of the maps with strides {tuple(in_strides)}, none before the last has a stride of "
            f"at least min_stride ({min_stride}); set {lower}model/head=fcn"
        )
    return levels
