"""Distributions from 2022 on that weight a window, against loops over its cells."""

import math

import pytest
import torch
import torch.nn.functional as F

from gald.model.ld.bilateral import JointBilateral
from gald.model.ld.fade import FADE
from gald.model.ld.freqfusion import FreqFusion

SIZES = [(1, 1), (1, 4), (6, 7)]


def pair(size=(6, 7), channels=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, channels, *size, generator=generator).double().unbind()


def build(kind, **options):
    torch.manual_seed(0)
    module = kind(8, width=4, **options).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # far from the initial state
    return module


def one_by_one(conv, x):
    y = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], x)
    return y if conv.bias is None else y + conv.bias.view(-1, 1, 1)


def cells(size, i, j, kernel_size):
    """List index and offset of the cells of a window that are inside the map."""
    reach = range(-(kernel_size // 2), kernel_size // 2 + 1)
    offsets = enumerate((di, dj) for di in reach for dj in reach)
    return [
        (index, di, dj)
        for index, (di, dj) in offsets
        if 0 <= i + di < size[0] and 0 <= j + dj < size[1]
    ]


def weighted(x, weight_of, kernel_size):
    """Sum the windows of x with weights that are scaled to sum 1, and return both."""
    size = x.shape[2:]
    y = torch.zeros_like(x)
    maps = torch.zeros(len(x), kernel_size**2, *size).double()
    for b, i, j in torch.cartesian_prod(*map(torch.arange, (len(x), *size))).tolist():
        inside = cells(size, i, j, kernel_size)
        weights = [weight_of(b, i, j, *cell) for cell in inside]
        for (index, di, dj), weight in zip(inside, weights, strict=True):
            maps[b, index, i, j] = weight / sum(weights)
            y[b, :, i, j] += maps[b, index, i, j] * x[b, :, i + di, j + dj]
    return y, maps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [1, 3])
def test_joint_bilateral_matches_a_range_kernel_times_a_gaussian(size, radius):
    context, x = pair(size)
    module = build(JointBilateral, radius=radius)
    hidden = one_by_one(module.guide[0], x)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    guide = one_by_one(module.guide[2], hidden)
    temperature, spread = module.log_temperature.exp().item(), module.log_spread.exp().item()

    def weight_of(b, i, j, index, di, dj):
        alike = (guide[b, :, i, j] * guide[b, :, i + di, j + dj]).sum().item()
        square = (di**2 + dj**2) / radius**2
        return math.exp(temperature * alike) * math.exp(-square / (2 * spread**2))

    y, maps = weighted(context, weight_of, 2 * radius + 1)
    torch.testing.assert_close(module(context, x), y)
    torch.testing.assert_close(module.distribution_map(context, x), maps)


def test_joint_bilateral_keeps_apart_what_differs_in_x():
    _, x = pair((8, 8))
    x = torch.zeros_like(x)
    x[..., 4:] = 1.0
    context = 5.0 * x + 1.0
    module = build(JointBilateral)
    module.guide = torch.nn.Conv2d(8, 8, 1, bias=False).double()
    torch.nn.init.dirac_(module.guide.weight)
    module.log_temperature.data.fill_(3.0)
    halves = 2 * x - 1  # so that different halves point in opposite directions
    torch.testing.assert_close(module(context, halves), context)
    module.log_temperature.data.fill_(-20.0)
    assert (module(context, halves) - context).abs().max() > 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_fade_matches_a_loop_over_windows_and_a_gate(size, kernel_size):
    context, x = pair(size)
    module = build(FADE, kernel_size=kernel_size)
    hidden = one_by_one(module.from_context, context) + one_by_one(module.from_x, x)
    hidden = F.pad(hidden, (1,) * 4)

    def weight_of(b, i, j, index, di, dj):
        patch = hidden[b, :, i : i + 3, j : j + 3]
        logit = (module.encode.weight[index] * patch).sum() + module.encode.bias[index]
        return math.exp(logit.item())

    y, _ = weighted(context, weight_of, kernel_size)
    gate = 1 / (1 + (-one_by_one(module.decide, context)).exp())
    torch.testing.assert_close(module(context, x), gate * y + (1 - gate) * x)
    torch.testing.assert_close(module.distribution_map(context, x), gate)


@pytest.mark.parametrize(("bias", "takes"), [(50.0, "mean"), (-50.0, "x")])
def test_fade_takes_the_reassembled_context_at_one_and_keeps_x_at_zero(bias, takes):
    context, x = pair()
    module = FADE(8, kernel_size=3).double()
    torch.nn.init.zeros_(module.encode.weight)
    torch.nn.init.zeros_(module.encode.bias)
    torch.nn.init.constant_(module.decide.bias, bias)
    mean = F.avg_pool2d(context, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(module(context, x), {"mean": mean, "x": x}[takes])


def hamming(kernel_size, di, dj):
    last = kernel_size - 1
    rows, columns = (
        0.54 - 0.46 * math.cos(2 * math.pi * (step + kernel_size // 2) / last) for step in (di, dj)
    )
    return rows * columns


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("low_size", "high_size"), [(5, 3), (3, 7)])
def test_freqfusion_matches_loops_over_two_windows(size, low_size, high_size):
    context, x = pair(size)
    module = build(FreqFusion, low_size=low_size, high_size=high_size)
    hidden = one_by_one(module.from_context, context) + one_by_one(module.from_x, x)
    hidden = F.pad(hidden, (1,) * 4)

    def window(layer):
        def weight_of(b, i, j, index, di, dj):
            patch = hidden[b, :, i : i + 3, j : j + 3]
            logit = (layer.encode.weight[index] * patch).sum() + layer.encode.bias[index]
            return math.exp(logit.item()) * hamming(layer.kernel_size, di, dj)

        return weight_of

    smooth, maps = weighted(context, window(module.low), low_size)
    blurred, _ = weighted(x, window(module.high), high_size)
    torch.testing.assert_close(module(context, x), smooth + x + (x - blurred), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module.distribution_map(context, x), maps, rtol=1e-6, atol=1e-6)


def test_freqfusion_adds_features_that_are_constant():
    context, x = (torch.full_like(part, value) for part, value in zip(pair(), (3, 4), strict=True))
    torch.testing.assert_close(build(FreqFusion)(context, x), context + x)


@pytest.mark.parametrize("kind", [JointBilateral, FreqFusion])
def test_weights_sum_to_one_and_are_zero_outside_the_map(kind):
    context, x = pair()
    weights = build(kind).distribution_map(context, x)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    side = math.isqrt(weights.shape[1])
    for b, i, j in torch.cartesian_prod(*map(torch.arange, (2, 6, 7))).tolist():
        inside = {index for index, _, _ in cells((6, 7), i, j, side)}
        assert {k for k in range(side**2) if weights[b, k, i, j] > 0} == inside


@pytest.mark.parametrize("kind", [JointBilateral, FADE, FreqFusion])
def test_features_beyond_a_product_in_float16_give_finite_results(kind):
    torch.manual_seed(0)
    context, x = (3000.0 * part.float() for part in pair())
    module = kind(8).eval()
    with torch.autocast("cpu", dtype=torch.float16):
        assert module(context, x).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (JointBilateral, {"radius": 0}, r"radius \(0\) must be at least 1.*; set radius=3"),
        (FADE, {"kernel_size": 4}, r"kernel_size \(4\) must be odd and at least 3.*; choose 5"),
        (FreqFusion, {"low_size": 1}, r"low_size \(1\) must be odd and at least 3.*; choose 3"),
        (FreqFusion, {"high_size": 4}, r"high_size \(4\) must be odd and at least 3.*; choose 5"),
    ],
)
def test_window_without_a_centre_or_neighbours_is_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(8, **options)
