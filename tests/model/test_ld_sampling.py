import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from gald.model.ld.deform import DeformableSampling
from gald.model.ld.guided import GuidedFilter

SIZES = [(1, 1), (1, 4), (6, 7)]


def pair(size=(6, 7), channels=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, channels, *size, generator=generator).double().unbind()


def deform(kernel_size=3):
    torch.manual_seed(0)
    module = DeformableSampling(8, kernel_size=kernel_size, width=4).double().eval()
    for parameter in (*module.weigh.parameters(), *module.move.parameters()):
        torch.nn.init.normal_(parameter)  # far from the initial state, the mean of the window
    return module


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_deform_matches_torchvision_on_a_map_with_replicated_border(size, kernel_size):
    context, x = pair(size)
    module = deform(kernel_size)
    hidden = module.compress(torch.cat([context, x], 1))
    offsets, weights = module.move(hidden), module.weigh(hidden).softmax(1)
    assert offsets.abs().max() > 1
    margin = int(offsets.abs().max()) + kernel_size + 2
    pads = (margin,) * 4
    expected = deform_conv2d(
        F.pad(context, pads, mode="replicate"),
        F.pad(offsets, pads),
        torch.ones(8, 1, kernel_size, kernel_size).double(),
        padding=kernel_size // 2,
        mask=F.pad(weights, pads),
    )[..., margin:-margin, margin:-margin]
    torch.testing.assert_close(module(context, x), expected)


def test_deform_reads_a_place_that_its_offset_points_to():
    context, x = pair()
    module = deform()
    for layer in (module.weigh, module.move):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    module.weigh.bias.data[4] = 50.0  # only the centre
    module.move.bias.data[8:10] = torch.tensor([1.0, -2.0])
    y = module(context, x)
    torch.testing.assert_close(y[..., :-1, 2:], context[..., 1:, :-2])
    torch.testing.assert_close(y[..., -1, 2:], context[..., -1, :-2])


def test_deform_starts_near_the_mean_of_the_window():
    torch.manual_seed(0)
    context, x = pair()
    mean = F.avg_pool2d(F.pad(context, (1,) * 4, mode="replicate"), 3, stride=1)
    module = DeformableSampling(8).double().eval()
    assert module.move(module.compress(torch.cat([context, x], 1))).abs().max() < 0.75
    assert (module(context, x) - mean).norm() < 0.2 * mean.norm()


def test_deform_weights_sum_to_one():
    weights = deform().distribution_map(*pair())
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


@pytest.mark.parametrize(("kernel_size", "remedy"), [(4, 5), (1, 3)])
def test_deform_refuses_a_kernel_without_centre_or_neighbours(kernel_size, remedy):
    message = rf"kernel_size \({kernel_size}\) must be odd and at least 3.*; choose {remedy}"
    with pytest.raises(ValueError, match=message):
        DeformableSampling(8, kernel_size=kernel_size)


def ridge(i, o, eps):
    """Fit a * i + b to o by the normal equations; eps regularises a."""
    n = i.numel()
    left = torch.stack(
        [torch.stack([(i * i).sum() + n * eps, i.sum()]), torch.stack([i.sum(), i.new_tensor(n)])]
    )
    return torch.linalg.solve(left, torch.stack([(i * o).sum(), o.sum()])).unbind()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("stride", "radius", "eps"), [(1, 1, 0.01), (2, 1, 0.1), (2, 2, 1e-4)])
def test_guided_filter_matches_a_ridge_regression_in_every_window(
    stride, radius, eps, align_corners
):
    torch.manual_seed(0)
    context, x = pair((6, 8), channels=3)
    module = GuidedFilter(3, stride, radius, eps, align_corners).double()
    guide = torch.einsum("oc,bchw->bohw", module.guide.weight[:, :, 0, 0], x)
    rows, columns = 6 // stride, 8 // stride
    i, o = (
        part.unflatten(3, (columns, stride)).unflatten(2, (rows, stride)).mean(dim=(3, 5))
        for part in (guide, context)
    )
    a, b, explained = (torch.empty_like(i) for _ in range(3))
    for index in torch.cartesian_prod(*map(torch.arange, i.shape)).tolist():
        row, column = index[2:]
        window = (
            *index[:2],
            slice(max(row - radius, 0), row + radius + 1),
            slice(max(column - radius, 0), column + radius + 1),
        )
        slope, intercept = ridge(i[window], o[window], eps)
        a[tuple(index)], b[tuple(index)] = slope, intercept
        variance = o[window].var(unbiased=False) + eps
        explained[tuple(index)] = slope**2 * (i[window].var(unbiased=False) + eps) / variance
    up = {"size": (6, 8), "mode": "bilinear", "align_corners": align_corners}
    a, b, explained = (F.interpolate(part, **up) for part in (a, b, explained))
    torch.testing.assert_close(module(context, x), a * guide + b)
    torch.testing.assert_close(module.distribution_map(context, x), explained)


def identity_guide(**arguments):
    module = GuidedFilter(8, **arguments).double()
    torch.nn.init.dirac_(module.guide.weight)
    return module


def test_guided_filter_restores_detail_that_is_a_line_in_x():
    _, x = pair((16, 16))
    context = 3 * x + 2
    module = identity_guide(stride=4, eps=1e-13)
    torch.testing.assert_close(module(context, x), context)
    assert module.distribution_map(context, x).min() > 0.99


def test_guided_filter_gives_the_local_mean_where_x_is_flat():
    context, _ = pair((8, 8))
    x = torch.ones_like(context)
    module = identity_guide(stride=1)
    mean = F.avg_pool2d(context, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(module(context, x), mean)
    assert module.distribution_map(context, x).max() < 1e-9


def test_guided_filter_keeps_a_single_cell():
    context, x = pair((1, 1))
    torch.testing.assert_close(identity_guide()(context, x), context)


def test_guided_filter_names_stride_and_radius():
    with pytest.raises(ValueError, match=r"stride \(0\) and radius \(1\) must be at least 1"):
        GuidedFilter(8, stride=0)
