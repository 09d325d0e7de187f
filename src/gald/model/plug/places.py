"""Places of a network where GA and LD fit, found by running it on images of two sizes."""

import difflib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gald.model.idle import leaves_of
from gald.model.plug.outputs import feature_of, with_feature

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 14, 28)
_MOST_PREFIX = 16  # tokens of a class and registers
# Common strides only, of pooling and of patches, since small images fit others too.
_STRIDES = (1, 2, 4, 8, 16, 32, 64, 7, 14, 28, 56, 3, 6, 12, 24, 48)

Layout = Literal["map", "channels_last", "tokens"]


class Place(NamedTuple):
    """Output of a submodule that GA and LD can replace.

    Attributes:
        channels: width C.
        stride: image pixels per cell.
        layout: `map` is (B, C, h, w), `channels_last` is (B, h, w, C), `tokens` is (B, N, C), row
            by row.
        prefix: number of tokens before those of the map, as a class token.
    """

    channels: int
    stride: int
    layout: Layout = "map"
    prefix: int = 0


class Probe(NamedTuple):
    """What a network does with images.

    Attributes:
        multiple: image sides must be multiples of it.
        stride: image pixels per pixel of the logits.
        places: by name of the submodule, in the order of the forward pass.
    """

    multiple: int
    stride: int
    places: dict[str, Place]


def probe(
    network: nn.Module,
    logits_of: Callable[[Tensor], Tensor],
    name: str,
    wanted: str | None = None,
) -> Probe:
    """Find the image sizes that a network takes, and the places where a block fits.

    A place is a submodule that runs once in a pass, that returns a map with a fixed stride, and
    that the logits depend on. The network runs in evaluation mode on black images of about 100
    pixels; nothing in it changes.

    Args:
        network: the network.
        logits_of: image (B, 3, H, W) -> logits (B, K, h, w), by that network.
        name: of the network, for the message.
        wanted: a place; the smallest multiple with it is chosen, else the one with most places.

    Raises:
        ValueError: the network does not run on images of several sizes, or its logits do not cover
            the image.
    """
    reasons: dict[int, str] = {}
    best: Probe | None = None
    is_name = wanted is None or wanted in dict(network.named_modules())
    with _evaluating(network):
        for multiple in _MULTIPLES:
            sizes = _sizes(multiple)
            try:
                with torch.no_grad():
                    runs = [_shapes(network, logits_of, size) for size in sizes]
            except Exception as error:  # of any type: networks have no common one
                reasons[multiple] = " ".join(str(error).split())[:120] or type(error).__name__
                continue
            stride = _stride_of([run.logits for run in runs], sizes)
            if stride is None:
                reasons[multiple] = f"its logits are {runs[0].logits} for images of {sizes[0]}"
                continue
            found = {
                key: place
                for key, shape in runs[0].features.items()
                if key in runs[1].features
                and (place := _place([shape, runs[1].features[key]], sizes)) is not None
            }
            if best is not None and len(found) <= len(best.places) and wanted not in found:
                continue
            best = Probe(multiple, stride, found)
            if wanted in found or not is_name:
                break
        if best is not None:
            used = _used(network, logits_of, _sizes(best.multiple)[0], best.places)
            return best._replace(places={k: best.places[k] for k in best.places if k in used})
    raise ValueError(
        f"{name} does not give logits for images of several sizes ({reasons[32]}); choose another "
        "model.host"
    )


def place_of(places: dict[str, Place], at: str | None, name: str) -> Place:
    """Return a place by name.

    Raises:
        ValueError: there is no such place; the message names some.
    """
    if at in places:
        return places[at]
    near = difflib.get_close_matches(at or "", places, n=3, cutoff=0.5) or _some(places)
    listed = "; ".join(
        f"model.at={key} (stride {places[key].stride}, {places[key].channels} channels)"
        for key in near
    )
    what = "model.at is not set" if at is None else f"{name} has no place model.at={at}"
    raise ValueError(
        f"{what}; choose for example {listed}"
        if near
        else f"{name} has no submodule that returns a map; choose another model.host"
    )


def _some(places: dict[str, Place]) -> list[str]:
    """Return the places of the largest parts, the last ones first."""
    depth = min((key.count(".") for key in places), default=0)
    return [key for key in reversed(places) if key.count(".") == depth][:3]


class _Shapes(NamedTuple):
    logits: tuple[int, ...]
    features: dict[str, tuple[int, ...]]


def _sizes(multiple: int) -> list[tuple[int, int]]:
    """Return two image sizes that are odd multiples."""
    small, step = -(-96 // multiple) | 1, 2 * -(-16 // multiple)
    a, b, c = (multiple * (small + step * n) for n in range(3))
    return [(a, b), (b, c)]


@contextmanager
def _evaluating(network: nn.Module) -> Generator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _image(network: nn.Module, size: Sequence[int]) -> Tensor:
    like = next(network.parameters())
    return torch.zeros(2, 3, *size, dtype=like.dtype, device=like.device)


def _shapes(
    network: nn.Module, logits_of: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> _Shapes:
    features: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            feature = feature_of(output)
            if feature is not None and feature.is_floating_point():
                features[name] = tuple(feature.shape)

        return after

    hooks = [m.register_forward_hook(note(name)) for name, m in network.named_modules() if name]
    try:
        logits = logits_of(_image(network, size))
    finally:
        for hook in hooks:
            hook.remove()
    return _Shapes(tuple(logits.shape), {k: v for k, v in features.items() if calls[k] == 1})


def _used(
    network: nn.Module,
    logits_of: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    places: Sequence[str] | dict[str, Place],
) -> set[str]:
    """Return the places that the logits depend on."""
    leaves: dict[str, Tensor] = {}

    def add_leaf(name: str) -> Callable[..., Any]:
        def after(module: nn.Module, inputs: Any, output: Any) -> Any:
            feature = feature_of(output)
            if feature is None:
                return output
            leaves[name] = torch.zeros_like(feature, requires_grad=True)
            return with_feature(output, feature, feature + leaves[name])

        return after

    hooks = [network.get_submodule(name).register_forward_hook(add_leaf(name)) for name in places]
    try:
        with torch.enable_grad():
            logits = logits_of(_image(network, size))
    finally:
        for hook in hooks:
            hook.remove()
    reached = leaves_of([logits.grad_fn])
    return {name for name, leaf in leaves.items() if id(leaf) in reached}


def _stride_of(
    shapes: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, int]], first: int = 2
) -> int | None:
    """Return the stride of maps with height and width as two axes from `first`; None if none."""
    for stride in _STRIDES:
        if all(
            shape[first : first + 2] == tuple(-(-side // stride) for side in size)
            for shape, size in zip(shapes, sizes, strict=True)
        ):
            return stride
    return None


def _place(shapes: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, int]]) -> Place | None:
    """Return how maps of two images lie in tensors; None if these are no maps."""
    a, b = shapes
    if len(a) != len(b) or a[0] != 2:
        return None
    if len(a) == 4:
        for layout, channel, first in (("map", 1, 2), ("channels_last", 3, 1)):
            stride = _stride_of(shapes, sizes, first)
            if a[channel] == b[channel] and stride:
                return Place(a[channel], stride, layout)
    if len(a) == 3 and a[2] == b[2]:
        for stride in _STRIDES:
            cells = [-(-h // stride) * -(-w // stride) for h, w in sizes]
            prefix = a[1] - cells[0]
            if 0 <= prefix <= _MOST_PREFIX and b[1] - cells[1] == prefix:
                return Place(a[2], stride, "tokens", prefix)
    return None
