"""Distributions that move the context, against bilinear readings taken one by one."""

import math

import pytest
import torch
import torch.nn.functional as F

from gald.model.ld.body_edge import BodyEdge
from gald.model.ld.dysample import DySample
from gald.model.ld.flow import SemanticFlow
from gald.model.warping import grid, own_weight, sample, sample_by_gathering, warp

SIZES = [(1, 1), (1, 4), (6, 7)]
KINDS = [DySample, SemanticFlow, BodyEdge]
every_kind = pytest.mark.parametrize("kind", KINDS)


def pair(size=(6, 7), channels=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, channels, *size, generator=generator).double().unbind()


def build(kind, *arguments, **options):
    """Build a module far from its initial state, in which nothing moves."""
    torch.manual_seed(0)
    module = kind(8, *arguments, **options).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def read(x, row, column):
    """Read one image (C, h, w) bilinearly at one place; outside is the border."""
    h, w = x.shape[1:]
    row, column = min(max(row, 0.0), h - 1.0), min(max(column, 0.0), w - 1.0)
    total = torch.zeros_like(x[:, 0, 0])
    for i in {math.floor(row), math.ceil(row)}:
        for j in {math.floor(column), math.ceil(column)}:
            total = total + (1 - abs(row - i)) * (1 - abs(column - j)) * x[:, i, j]
    return total


def warped(x, offsets):
    """Read every position of every channel group at its offset, one by one."""
    groups, width = offsets.shape[1] // 2, x.shape[1] * 2 // offsets.shape[1]
    y = torch.empty_like(x)
    for b, g, i, j in torch.cartesian_prod(
        *map(torch.arange, (len(x), groups, *x.shape[2:]))
    ).tolist():
        down, right = offsets[b, g, i, j].item(), offsets[b, groups + g, i, j].item()
        own = slice(g * width, (g + 1) * width)
        y[b, own, i, j] = read(x[b, own], i + down, j + right)
    return y


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("reach", [0.3, 3.0])
def test_warp_matches_bilinear_readings_one_by_one(size, groups, reach):
    x, noise = pair(size)
    offsets = reach * noise[:, : 2 * groups]
    torch.testing.assert_close(warp(x, offsets), warped(x, offsets))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reach", [0.3, 3.0])
def test_gathering_four_pixels_is_the_same_reading(size, reach):
    # In place of grid_sample where PyTorch must be deterministic on a GPU.
    x, noise = pair(size)
    rows, columns = (axis + reach * noise[:, i] for i, axis in enumerate(grid(x)))
    results = []
    for read_with in (sample, sample_by_gathering):
        inputs = [t.detach().requires_grad_() for t in (x, rows, columns)]
        y = read_with(*inputs)
        results.append((y, *torch.autograd.grad(y, inputs, noise)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_own_weight_is_the_share_of_the_position_itself():
    _, noise = pair()
    offsets = noise[:, :4]
    weight = own_weight(offsets)
    for g, i, j in torch.cartesian_prod(*map(torch.arange, (2, 4, 5))).tolist():
        impulse = torch.zeros(2, 2, 8, 9).double()
        impulse[:, g, i + 2, j + 2] = 1.0  # far from the border
        padded = F.pad(offsets[..., :4, :5], (2, 2, 2, 2))
        torch.testing.assert_close(
            warp(impulse, padded)[:, g, i + 2, j + 2], weight[:, g, i, j], msg=f"{g, i, j}"
        )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("groups", [1, 4])
def test_dysample_matches_readings_one_by_one(size, groups):
    context, x = pair(size)
    module = build(DySample, groups)
    weight, bias = module.move.weight[:, :, 0, 0], module.move.bias
    both = torch.cat([context, x], dim=1)
    offsets = 0.5 * (torch.einsum("oc,bchw->bohw", weight, both) + bias.view(-1, 1, 1))
    torch.testing.assert_close(module(context, x), warped(context, offsets))
    down, right = offsets.abs().chunk(2, dim=1)
    own = torch.where((down < 1) & (right < 1), (1 - down) * (1 - right), 0.0)
    torch.testing.assert_close(module.distribution_map(context, x), own)


def convolved(conv, x):
    """Apply a 3x3 convolution patch by patch."""
    padded = F.pad(x, (1, 1, 1, 1))
    y = conv.bias.view(-1, 1, 1).expand(len(x), -1, *x.shape[2:]).clone()
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            patch = padded[:, None, :, i : i + 3, j : j + 3]
            y[:, :, i, j] += (conv.weight * patch).sum(dim=(2, 3, 4))
    return y


@pytest.mark.parametrize("size", SIZES)
def test_semantic_flow_matches_two_readings_and_a_gate(size):
    context, x = pair(size)
    module = build(SemanticFlow, width=3)
    hidden = torch.cat(
        [
            torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], feature)
            for conv, feature in ((module.from_context, context), (module.from_x, x))
        ],
        dim=1,
    )
    flows = convolved(module.move, hidden)
    gate = 1 / (1 + (-convolved(module.decide, hidden)).exp())
    y = gate * warped(context, flows[:, :2]) + (1 - gate) * warped(x, flows[:, 2:])
    torch.testing.assert_close(module(context, x), y)
    torch.testing.assert_close(module.distribution_map(context, x), gate)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_body_edge_matches_a_reading_and_a_gated_rest(size, align_corners):
    context, x = pair(size)
    module = build(BodyEdge, width=3, align_corners=align_corners)
    smooth = module.down(context)
    assert smooth.shape[2:] == tuple((side + 3) // 4 for side in size)
    up = {"size": size, "mode": "bilinear", "align_corners": align_corners}
    smooth = F.interpolate(smooth, **up)
    body = warped(context, convolved(module.move, torch.cat([context, smooth], dim=1)))
    rest = torch.cat([context - body, x], dim=1)
    edge = torch.einsum("oc,bchw->bohw", module.refine.weight[:, :, 0, 0], rest)
    hidden, last = module.find
    logits = torch.einsum("oc,bchw->bohw", last.weight[:, :, 0, 0], hidden(edge)) + last.bias
    gate = 1 / (1 + (-logits).exp())
    torch.testing.assert_close(module(context, x), body + gate * edge)
    torch.testing.assert_close(module.distribution_map(context, x), gate)


@every_kind
def test_a_constant_context_stays_where_only_places_change(kind):
    _, x = pair()
    context = torch.full_like(x, 3.0)
    module = build(kind)
    y = module(context, x)
    if kind is SemanticFlow:  # with x as constant as the context
        y = module(context, context)
    if kind is BodyEdge:  # no edge
        torch.nn.init.zeros_(module.refine.weight)
        y = module(context, x)
    torch.testing.assert_close(y, context)


@every_kind
def test_context_starts_near_its_place(kind):
    torch.manual_seed(0)
    context, x = pair()
    module = kind(8).double().eval()
    if kind is DySample:
        torch.testing.assert_close(module(context, x), context, rtol=0, atol=0.1)
        assert module.distribution_map(context, x).min() > 0.98
    if kind is SemanticFlow:
        torch.testing.assert_close(module(context, x), (context + x) / 2, rtol=0, atol=0.1)
    if kind is BodyEdge:
        torch.nn.init.zeros_(module.refine.weight)
        torch.testing.assert_close(module(context, x), context, rtol=0, atol=0.1)


@every_kind
def test_places_are_exact_in_a_large_map_under_autocast(kind):
    # In bfloat16 column 299 and 300 are the same number.
    context = torch.arange(300.0).expand(1, 8, 2, 300).contiguous()
    module = kind(8).eval()
    torch.nn.init.zeros_(module.move.weight)
    torch.nn.init.zeros_(module.move.bias)
    if kind is BodyEdge:
        torch.nn.init.zeros_(module.refine.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(context, context)
    torch.testing.assert_close(y, context, rtol=0, atol=0.001)


def test_dysample_needs_groups_that_divide_the_channels():
    with pytest.raises(ValueError, match=r"channels \(8\) must be divisible by groups \(3\)"):
        DySample(8, groups=3)
