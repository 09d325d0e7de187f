"""Recording of the context slots' inputs and outputs: `with gald.record(model) as maps: ...`."""

import copy
import inspect
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gald.model.network import Network
from gald.model.plug.module import PluggedModule
from gald.progress import Lines

SLOTS = ("ga", "ld")
INPUTS = {"ga": ("input",), "ld": ("context", "x")}  # further inputs of a slot are not recorded

COPIES = 16  # limit of copies of an image in one pass
COPIED_PAIRS = 2**25  # limit of pairs of cells in all copies together


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """One recorded map.

    Attributes:
        values: (B, C, h, w), detached.
        stride: image pixels per cell.
        meaning: description of the values.
    """

    values: Tensor
    stride: int
    meaning: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, C, h, w)."""
        return tuple(self.values.shape)


class Recording(dict[str, FeatureMap]):
    """Maps of the latest pass by name, and attention computed from them.

    `ga/input` and `ga/output` are input and output of global aggregation. `ld/context` and `ld/x`
    are the inputs of local distribution, `ld/output` is its output, and `ld/map` its distribution
    map, if it has one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ga: tuple[nn.Module, tuple[Tensor, ...]] | None = None

    def __repr__(self) -> str:
        """Describe each map in a line: name, shape, stride, meaning."""
        rows = (f"{n}  {m.shape}  stride {m.stride}  {m.meaning}" for n, m in self.items())
        return "\n".join(rows) or "no maps yet: no image has passed through the network"

    def attention(self, row: int, column: int, image: int = 0) -> FeatureMap:
        """Compute the influence of every input cell on global aggregation at one cell.

        It is the sum of |d out_c(q) / d in_c'(p)| over all pairs of channels c, c', for the query
        cell q and every cell p. Unlike attention weights it exists for every module, also for fused
        kernels and modules without attention. The value at q includes the residual path. If the
        module reads scores of an auxiliary head, they are constants. The cost is one backward pass
        of the module per channel.

        Args:
            row: of the query, in cells of the map.
            column: of the query, in cells of the map.
            image: index in the batch.

        Returns:
            (1, 1, h, w), the influence of this image only. In training mode other images of the
            batch also have an influence, through batch statistics; it is left out.

        Raises:
            ValueError: `ga` was not recorded, or the cell is outside of the map.
        """
        if self._ga is None:
            raise ValueError(
                "global aggregation was not recorded; call gald.record(model, 'ga') and pass an "
                "image through the network"
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
        if not module.training:  # images are independent: one pass serves several channels
            copies = min(COPIES, max(1, COPIED_PAIRS // (h * w) ** 2))
            inputs = tuple(part[image : image + 1] for part in inputs)
        total = torch.zeros_like(inputs[0][0, 0])
        full_precision = torch.autocast(total.device.type, enabled=False)
        count = inputs[0].shape[1]
        lines = Lines(f"attention at cell ({row}, {column}), channels", count)
        for channels in torch.arange(count).split(copies):
            rows = [image] if module.training else list(range(len(channels)))
            with torch.inference_mode(False), torch.enable_grad(), full_precision:
                x, *others = (part.repeat(len(channels), 1, 1, 1) for part in inputs)
                x.requires_grad_()
                # The module is copied, since it may update running statistics; x is cloned, since
                # a leaf may not be written to.
                out = _copied(module)(x.clone(), *others)
                (gradients,) = torch.autograd.grad(out[rows, channels, row, column].sum(), x)
            total += gradients[rows].abs().sum((0, 1))
            lines.show(int(channels[-1]) + 1)
        meaning = (
            f"influence of every cell on {type(module).__name__} at cell ({row}, {column}): "
            "sum of |d out / d in| over all pairs of channels"
        )
        return FeatureMap(total[None, None], self["ga/input"].stride, meaning)


@contextmanager
def record(model: nn.Module, *slots: str) -> Generator[Recording]:
    """Record inputs and outputs of a network's context slots, without changing its results.

    It works with any GA and LD in any order, in training and in evaluation. Each pass replaces the
    maps of the one before. The recording remains usable after the `with` block.

    Args:
        model: a `Segmentor`, a `Plugged`, the result of `gald.plug`, or an object with one as
            `model`: `Predictor`, `SegmentationTask`.
        slots: `ga`, `ld` or both; none means both.

    Raises:
        ValueError: there is no such slot, or the model has no slots.
    """
    kinds = Network | PluggedModule
    segmentor = model if isinstance(model, kinds) else getattr(model, "model", None)
    if not isinstance(segmentor, kinds):
        raise ValueError(
            f"{type(model).__name__} has no slots to record; give a network from gald.load(RUN)"
        )
    for slot in slots:
        if slot not in SLOTS:
            raise ValueError(f"there is no slot {slot!r} to record; choose from {', '.join(SLOTS)}")
    maps = Recording()
    hooks = []
    for slot in dict.fromkeys(slots or SLOTS):
        hooks += _hook(maps, slot, getattr(segmentor, slot), segmentor.slot_stride)
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _hook(maps: Recording, slot: str, module: nn.Module, stride: int) -> list[RemovableHandle]:
    """Register the hooks that record a slot."""
    name = type(module).__name__
    before: list[tuple[Any, tuple[Any, ...]]] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        before[:] = [(_copied(module), _detached(inputs))]

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        frozen, arguments = before.pop()
        for part, value in zip(INPUTS[slot], arguments, strict=False):
            maps[f"{slot}/{part}"] = FeatureMap(value, stride, f"{part} passed to {name}")
        maps[f"{slot}/output"] = FeatureMap(_detached(output), stride, f"output of {name}")
        if slot == "ga":
            maps._ga = frozen, arguments
        elif hasattr(frozen, "distribution_map"):
            with torch.no_grad():
                ld_values = _detached(frozen.distribution_map(*arguments))
            maps["ld/map"] = FeatureMap(ld_values, stride, _meaning(frozen))

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _copied(module: nn.Module) -> nn.Module:
    """Copy a slot in its current state; in training every pass changes running statistics."""
    with torch.inference_mode(False):  # inference tensors cannot be differentiated
        copied = copy.deepcopy(module).requires_grad_(False)
    copied._forward_pre_hooks.clear()
    copied._forward_hooks.clear()
    return copied


def _detached(value: Any) -> Any:
    """Copy tensors, also in tuples, safe from in-place changes and without a graph."""
    if isinstance(value, tuple):
        return tuple(_detached(part) for part in value)
    with torch.inference_mode(False):
        return value.detach().clone()


def _meaning(ld: Any) -> str:
    """Return the description of an LD map from the docstring of its method."""
    text = inspect.getdoc(type(ld).distribution_map) or f"Return the map of {type(ld).__name__}."
    return " ".join(text.partition("Args:")[0].split()).removeprefix("Return ")
