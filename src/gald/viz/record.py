"""What the two context slots saw and made of an image: `with gald.record(model) as maps: ...`."""

import copy
import inspect
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gald.model.segmentor import Segmentor

SLOTS = ("ga", "ld")
INPUTS = {"ga": ("input",), "ld": ("context", "x")}  # by name; what else a slot reads is not kept

COPIES = 16  # of an image, most at once
COPIED_PAIRS = 2**25  # of cells, most in all copies together


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """One map of a pass.

    Attributes:
        values: (B, C, h, w), detached.
        stride: image pixels per cell.
        meaning: what the numbers are, in words.
    """

    values: Tensor
    stride: int
    meaning: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, C, h, w)."""
        return tuple(self.values.shape)


class Recording(dict[str, FeatureMap]):
    """The maps of the latest pass by name, and what else they can tell.

    `ga/input` and `ga/output` are what global aggregation was given and what it made of it;
    `ld/context` and `ld/x` what local distribution was given, `ld/output` what it made of them, and
    `ld/map` the map by which it decided, where it has one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ga: tuple[nn.Module, tuple[Tensor, ...]] | None = None

    def __repr__(self) -> str:
        """A line for each map: name, shape, stride, meaning."""
        rows = (f"{n}  {m.shape}  stride {m.stride}  {m.meaning}" for n, m in self.items())
        return "\n".join(rows) or "nothing yet: no image has passed through the network"

    def attention(self, row: int, column: int, image: int = 0) -> FeatureMap:
        """How strongly global aggregation at one cell depends on every cell of its input.

        The sum of |d out_c(q) / d in_c'(p)| over all pairs of channels c, c', for the query cell q
        and every cell p. Unlike attention weights it exists for every module, fused kernels and
        modules without attention included. Cell q itself holds the residual path too; scores of an
        auxiliary head that a module reads count as fixed. It takes a backward pass of the module
        for each channel.

        Args:
            row: of the query, in cells of the map.
            column: of the query, in cells of the map.
            image: its place in the batch.

        Returns:
            (1, 1, h, w); of a module in training the batch's other images, which share its norms,
            are not looked at.

        Raises:
            ValueError: `ga` was not recorded, or the cell is outside of the map.
        """
        if self._ga is None:
            raise ValueError(
                "global aggregation was not recorded; give record the slot 'ga' and pass an image "
                "through the network"
            )
        module, inputs = self._ga
        h, w = inputs[0].shape[-2:]
        if not (0 <= row < h and 0 <= column < w):
            raise ValueError(
                f"cell ({row}, {column}) is outside of the map of {h}x{w} cells; "
                f"choose a row below {h} and a column below {w}"
            )
        dtype = next((p.dtype for p in module.parameters()), torch.float32)
        inputs = tuple(part.to(dtype).detach() for part in inputs)
        copies = 1
        if not module.training:  # images do not see each other: copies of one answer at once
            copies = min(COPIES, max(1, COPIED_PAIRS // (h * w) ** 2))
            inputs = tuple(part[image : image + 1] for part in inputs)
        total = torch.zeros_like(inputs[0][0, 0])
        still = torch.autocast(total.device.type, enabled=False)
        for channels in torch.arange(inputs[0].shape[1]).split(copies):
            mine = [image] if module.training else list(range(len(channels)))
            with torch.inference_mode(False), torch.enable_grad(), still:
                x, *others = (part.repeat(len(channels), 1, 1, 1) for part in inputs)
                x.requires_grad_()
                # Copies of both: modules change running statistics, and no leaf may be written to.
                out = _copied(module)(x.clone(), *others)
                (slopes,) = torch.autograd.grad(out[mine, channels, row, column].sum(), x)
            total += slopes[mine].abs().sum((0, 1))
        meaning = (
            f"influence of every cell on {type(module).__name__} at cell ({row}, {column}): "
            "sum of |d out / d in| over all pairs of channels"
        )
        return FeatureMap(total[None, None], self["ga/input"].stride, meaning)


@contextmanager
def record(model: nn.Module, *slots: str) -> Generator[Recording]:
    """Keep what the context slots of a network see and make, without changing what it computes.

    Works with any GA and LD, in training and evaluation, whatever their order. What is yielded
    fills with each pass, the newest one counts, and stays usable afterwards.

    Args:
        model: a `Segmentor`, or what holds one as `model`: a `Predictor`, a `SegmentationTask`.
        slots: of `ga` and `ld`; none means both.

    Raises:
        ValueError: there is no such slot, or the model has no slots.
    """
    segmentor = model if isinstance(model, Segmentor) else getattr(model, "model", None)
    if not isinstance(segmentor, Segmentor):
        raise ValueError(
            f"{type(model).__name__} has no slots to record; give what gald.load returns"
        )
    for slot in slots:
        if slot not in SLOTS:
            raise ValueError(f"there is no slot {slot!r} to record; choose of {', '.join(SLOTS)}")
    maps = Recording()
    hooks = []
    neck: Any = segmentor.neck
    for slot in dict.fromkeys(slots or SLOTS):
        hooks += _watch(maps, slot, getattr(segmentor, slot), neck.strides[-1])
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _watch(maps: Recording, slot: str, module: nn.Module, stride: int) -> list[RemovableHandle]:
    """Hook a slot."""
    name = type(module).__name__
    before: list[tuple[Any, tuple[Any, ...]]] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        before[:] = [(_copied(module), _kept(inputs))]

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        frozen, given = before.pop()
        for part, value in zip(INPUTS[slot], given, strict=False):
            maps[f"{slot}/{part}"] = FeatureMap(value, stride, f"what {name} was given as {part}")
        maps[f"{slot}/output"] = FeatureMap(_kept(output), stride, f"what {name} returned")
        if slot == "ga":
            maps._ga = frozen, given
        elif hasattr(frozen, "distribution_map"):
            with torch.no_grad():
                ld_values = _kept(frozen.distribution_map(*given))
            maps["ld/map"] = FeatureMap(ld_values, stride, _meaning(frozen))

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _copied(module: nn.Module) -> nn.Module:
    """A slot as it is now; in training every pass changes running statistics."""
    with torch.inference_mode(False):  # what is made in it could never be differentiated
        copied = copy.deepcopy(module).requires_grad_(False)
    copied._forward_pre_hooks.clear()
    copied._forward_hooks.clear()
    return copied


def _kept(value: Any) -> Any:
    """A copy of tensors, in tuples too, that nothing changes in place and no graph hangs on."""
    if isinstance(value, tuple):
        return tuple(_kept(part) for part in value)
    with torch.inference_mode(False):
        return value.detach().clone()


def _meaning(ld: Any) -> str:
    """What a distribution's docstring says of its map."""
    text = inspect.getdoc(type(ld).distribution_map) or f"Return the map of {type(ld).__name__}."
    return " ".join(text.partition("Args:")[0].split()).removeprefix("Return ")
