import math

import pytest
import torch
import torch.nn.functional as F

from gald.model.ld.dynamic import DynamicKernel
from gald.model.ld.window import WindowAttention

SIZES = [(1, 1), (1, 4), (6, 7)]
both = pytest.mark.parametrize("kind", [DynamicKernel, WindowAttention])


def pair(size=(6, 7), channels=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, channels, *size, generator=generator).double().unbind()


def build(kind, kernel_size):
    torch.manual_seed(0)
    module = kind(8, kernel_size=kernel_size, width=4).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)  # far from the initial state, the mean of the window
    return module


def places(size):
    return torch.cartesian_prod(*map(torch.arange, (2, *size))).tolist()


def window(size, i, j, kernel_size):
    reach = range(-(kernel_size // 2), kernel_size // 2 + 1)
    cells = [(i + di, j + dj) for di in reach for dj in reach]
    inside = [0 <= row < size[0] and 0 <= column < size[1] for row, column in cells]
    return cells, inside


def mix(context, scores_of, kernel_size):
    """Apply a softmax over the cells inside the map, then sum, position by position."""
    size = context.shape[-2:]
    expected = torch.zeros_like(context)
    for b, i, j in places(size):
        cells, inside = window(size, i, j, kernel_size)
        exponents = {
            index: math.exp(scores_of(b, i, j, index, cell))
            for index, cell in enumerate(cells)
            if inside[index]
        }
        for index, exponent in exponents.items():
            weight = exponent / sum(exponents.values())
            expected[b, :, i, j] += weight * context[b, :, cells[index][0], cells[index][1]]
    return expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_dynamic_kernel_matches_a_loop_over_windows(size, kernel_size):
    context, x = pair(size)
    module = build(DynamicKernel, kernel_size)
    hidden = torch.einsum(
        "oc,bchw->bohw", module.compress.weight[:, :, 0, 0], torch.cat([context, x], 1)
    )
    hidden = F.pad(hidden + module.compress.bias.view(-1, 1, 1), (1,) * 4)

    def score(b, i, j, index, cell):
        patch = hidden[b, :, i : i + 3, j : j + 3]
        return ((module.encode.weight[index] * patch).sum() + module.encode.bias[index]).item()

    torch.testing.assert_close(module(context, x), mix(context, score, kernel_size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_window_attention_matches_a_loop_over_windows(size, kernel_size):
    context, x = pair(size)
    module = build(WindowAttention, kernel_size)
    query, key = module.query.weight[:, :, 0, 0], module.key.weight[:, :, 0, 0]

    def score(b, i, j, index, cell):
        q = query @ x[b, :, i, j] + module.query.bias
        dot = (q * (key @ context[b, :, cell[0], cell[1]])).sum() / math.sqrt(4)
        return (dot + module.position[index]).item()

    torch.testing.assert_close(module(context, x), mix(context, score, kernel_size))


@both
def test_weights_sum_to_one_and_are_zero_outside_the_map(kind):
    context, x = pair()
    weights = build(kind, 5).distribution_map(context, x)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    for b, i, j in places((6, 7)):
        _, inside = window((6, 7), i, j, 5)
        assert (weights[b, :, i, j] > 0).tolist() == inside


@both
def test_constant_context_is_kept_up_to_the_border(kind):
    _, x = pair()
    context = torch.full_like(x, 3.0)
    torch.testing.assert_close(build(kind, 5)(context, x), context)


@both
def test_both_features_change_the_map(kind):
    context, x = pair()
    module = build(kind, 3)
    ld_map = module.distribution_map(context, x)
    assert not torch.allclose(ld_map, module.distribution_map(-context, x))
    assert not torch.allclose(ld_map, module.distribution_map(context, -x))


def test_window_attention_survives_products_beyond_float16():
    torch.manual_seed(0)
    module = WindowAttention(8)
    context = 1000.0 * torch.randn(2, 8, 6, 7)
    with torch.autocast("cpu", dtype=torch.float16):
        assert module(context, context).isfinite().all()


@both
@pytest.mark.parametrize(("kernel_size", "remedy"), [(4, 5), (1, 3)])
def test_window_without_a_centre_or_neighbours_is_refused(kind, kernel_size, remedy):
    message = rf"kernel_size \({kernel_size}\) must be odd and at least 3.*; choose {remedy}"
    with pytest.raises(ValueError, match=message):
        kind(8, kernel_size=kernel_size)
