"""Whether an exported network scores as the network it was made from."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gald.export.graph import FullImageNetwork

Run = Callable[[Tensor], Sequence[Tensor]]
Shape = tuple[int, int, int]
TOLERANCE = 1e-4  # of the largest score


def compare(run: Run, network: FullImageNetwork, shapes: Sequence[Shape]) -> float:
    """Largest difference of scores on random images, as a share of the largest score.

    Args:
        run: the exported network, (B, 3, H, W) uint8 -> scores and labels.
        network: the original.
        shapes: batch, height and width of the images to compare on.

    Raises:
        ValueError: the exported network fails, or its scores or labels are others; says where.
    """
    return max(_compare(run, network, shape) for shape in shapes)


def random_image(batch: int, height: int, width: int) -> Tensor:
    """The same noise every time: (B, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def first_line(error: Exception) -> str:
    """What an error of a library says, as far as it fits into a sentence."""
    line = next(filter(None, map(str.strip, str(error).splitlines())), "")
    return f"{type(error).__name__}: {line[:160]}"


@torch.no_grad()
def _compare(run: Run, network: FullImageNetwork, shape: Shape) -> float:
    image = random_image(*shape)
    place = f"batch {shape[0]} of {shape[1]}x{shape[2]} px"
    expected = network(image)[0]
    try:
        scores, labels = run(image)
    except Exception as error:
        raise ValueError(f"{place}: {first_line(error)}") from error
    if scores.shape != expected.shape:
        raise ValueError(f"{place}: scores {tuple(scores.shape)}, not {tuple(expected.shape)}")
    share = float((scores - expected).abs().max() / expected.abs().max())
    if not share <= TOLERANCE:  # also where it is not a number
        raise ValueError(
            f"{place}: scores differ by {share:.1e} of the largest, more than {TOLERANCE:.0e}"
        )
    if not torch.equal(labels, scores.argmax(1).to(torch.uint8)):
        raise ValueError(f"{place}: labels are not the classes with the best scores")
    return share
