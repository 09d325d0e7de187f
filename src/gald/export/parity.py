"""Comparison of an exported network with the original."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gald.export.graph import FullImageNetwork

Run = Callable[[Tensor], Sequence[Tensor]]
Shape = tuple[int, int, int]
TOLERANCE = 1e-4  # of the largest score


def compare(run: Run, network: FullImageNetwork, shapes: Sequence[Shape]) -> float:
    """Return the largest difference of scores on random images, relative to the largest score.

    Args:
        run: the exported network, (B, 3, H, W) uint8 -> scores and labels.
        network: the original.
        shapes: batch, height and width of the images to compare on.

    Raises:
        ValueError: the exported network fails, or its scores or labels differ; names the shape.
    """
    return max(_compare(run, network, shape) for shape in shapes)


def random_image(batch: int, height: int, width: int) -> Tensor:
    """Return the same noise in every call: (B, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def first_line(error: Exception) -> str:
    """Return the type and first line of an error, short enough for one sentence."""
    line = next(filter(None, map(str.strip, str(error).splitlines())), "")
    return f"{type(error).__name__}: {line[:160]}"


@torch.no_grad()
def _compare(run: Run, network: FullImageNetwork, shape: Shape) -> float:
    image = random_image(*shape)
    where = f"batch {shape[0]} of {shape[1]}x{shape[2]} px"
    expected = network(image)[0]
    try:
        scores, labels = run(image)
    except Exception as error:
        raise ValueError(f"{where}: {first_line(error)}") from error
    if scores.shape != expected.shape:
        raise ValueError(f"{where}: scores {tuple(scores.shape)}, not {tuple(expected.shape)}")
    difference = float((scores - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:  # also true for NaN
        raise ValueError(
            f"{where}: scores differ by {difference:.1e} of the largest, more than {TOLERANCE:.0e}"
        )
    if not torch.equal(labels, scores.argmax(1).to(torch.uint8)):
        raise ValueError(f"{where}: labels are not the classes with the best scores")
    return difference
