"""Aggregations from 2020 on against slow formulas written from their papers."""

import math

import pytest
import torch
import torch.nn.functional as F

from gald.model.ga.external import ExternalAttention
from gald.model.ga.hamburger import Hamburger
from gald.model.ga.locat import LocAt
from gald.model.ga.msca import MSCA
from gald.model.ga.relu_linear import ReLULinearAttention
from gald.model.ga.strip import StripPooling

SIZES = [(5, 7), (1, 4), (4, 1), (1, 1)]


def feature(channels=16, size=(5, 7), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator).double()


def build(kind, *arguments, **options):
    torch.manual_seed(0)
    module = kind(*arguments, **options).double().eval()
    for name, tensor in module.state_dict().items():  # no norm is the identity
        if name.endswith("norm.running_mean"):
            torch.nn.init.normal_(tensor)
        if name.endswith("norm.running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return module


def one_by_one(conv, x):
    """Apply a 1x1 convolution as a matrix."""
    y = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], x)
    return y if conv.bias is None else y + conv.bias.view(-1, 1, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("heads", "reach"), [(1, 14), (4, 2)])
def test_locat_matches_a_loop_over_heads_and_pairs_of_positions(heads, reach, size):
    module = build(LocAt, 16, heads, reach)
    for layer in (module.spread, module.strength):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    x = feature(size=size, scale=2.0)
    places = [(i, j) for i in range(size[0]) for j in range(size[1])]
    width = 16 // heads
    y = torch.empty_like(x)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        q, k, v = (part[:, own] for part in one_by_one(module.qkv, x).chunk(3, dim=1))
        for i, j in places:
            query = q[..., i, j]
            variance = reach**2 / (1 + (reach**2 - 1) * (-module.spread(query)).exp())
            strength = (1 + module.strength(query)[:, 0].exp()).log()
            logits = []
            for a, b in places:
                square = torch.tensor([(i - a) ** 2, (j - b) ** 2]).double()
                near = (-(square / (2 * (variance + 0.1))).sum(1)).exp()
                dot = (query * k[..., a, b]).sum(1) / math.sqrt(width)
                logits.append(dot + strength * near)
            weights = torch.stack(logits).softmax(0)
            y[:, own, i, j] = sum(
                weight[:, None] * v[..., a, b]
                for weight, (a, b) in zip(weights, places, strict=True)
            )
    torch.testing.assert_close(module(x), x + module.project(y))


def test_locat_without_strength_is_attention_without_positions_and_with_it_is_local():
    module = build(LocAt, 16, 1)
    x = feature(size=(1, 9))
    torch.nn.init.constant_(module.strength.bias, -100.0)
    order = torch.randperm(9)
    torch.testing.assert_close(module(x[..., order]), module(x)[..., order])
    torch.nn.init.constant_(module.strength.bias, 100.0)
    torch.nn.init.constant_(module.spread.bias, -100.0)  # a Gaussian of one position
    local = x + module.project(one_by_one(module.qkv, x)[:, 32:])
    torch.testing.assert_close(module(x), local)


def test_locat_starts_with_the_gaussian_of_its_docstring():
    torch.manual_seed(0)
    module = LocAt(16).double()
    nearness = module._gaussian(torch.zeros(1, 6, 4).double(), 2, 3)
    expected = torch.empty(6, 6).double()
    for i in range(6):
        for j in range(6):
            square = (i // 3 - j // 3) ** 2 + (i % 3 - j % 3) ** 2
            expected[i, j] = math.log(2) * math.exp(-square / (2 * 1.1))
    torch.testing.assert_close(nearness[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, r"channels \(16\) must be divisible by heads \(3\)"),
        ({"reach": 1}, r"reach \(1\) must be at least 2.*; set reach=14"),
    ],
)
def test_locat_names_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        LocAt(16, **options)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(9, 11), (1, 4), (4, 1), (1, 1)])
def test_strip_pooling_matches_means_taken_one_by_one(size, align_corners):
    module = build(StripPooling, 16, bins=(3, 2), align_corners=align_corners)
    x = feature(size=size)
    u, v = module.enter_cells(x), module.enter_strips(x)
    total = module.cells[0](u)
    for cells, layer in ((3, module.cells[1]), (2, module.cells[2])):
        pooled = torch.empty(2, 4, cells, cells).double()
        for i in range(cells):
            for j in range(cells):
                rows = slice(i * size[0] // cells, -(-(i + 1) * size[0] // cells))
                columns = slice(j * size[1] // cells, -(-(j + 1) * size[1] // cells))
                pooled[..., i, j] = u[:, :, rows, columns].mean(dim=(2, 3))
        total = total + F.interpolate(
            layer(pooled), size=size, mode="bilinear", align_corners=align_corners
        )
    strips = torch.zeros_like(v)
    for mean, axis, layer in (
        (v.mean(2), 2, module.along_columns),
        (v.mean(3), 3, module.along_rows),
    ):
        kernel = layer.conv.weight.flatten(2)  # (C/4, C/4, 3)
        padded = F.pad(mean, (1, 1))
        y = sum(
            torch.einsum("oc,bcn->bon", kernel[..., k], padded[..., k : k + mean.shape[2]])
            for k in range(3)
        )
        y = layer.norm(y.unsqueeze(axis))  # (B, C/4, 1, w) or (B, C/4, h, 1)
        strips = strips + y.expand_as(v)
    y = torch.cat([module.leave_cells(total.relu()), module.leave_strips(strips.relu())], dim=1)
    torch.testing.assert_close(module(x), (x + module.project(y)).relu())


def test_strip_pooling_reaches_the_whole_row_and_column():
    module = build(StripPooling, 64, bins=(9,))
    x = feature(64, size=(40, 40)).requires_grad_()
    module(x)[0, :, 5, 7].sum().backward()
    reached = x.grad[0].any(dim=0)
    assert reached[5].all() and reached[:, 7].all() and not reached.all()


def depthwise(weight, bias, x):
    """Convolve every channel with its own kernel by a sum over shifted copies."""
    rows, columns = weight.shape[2:]
    top, left = rows // 2, columns // 2
    padded = F.pad(x, (left, left, top, top))
    h, w = x.shape[2:]
    total = bias.view(-1, 1, 1).expand_as(x)
    for i in range(rows):
        for j in range(columns):
            total = total + weight[:, 0, i, j, None, None] * padded[:, :, i : i + h, j : j + w]
    return total


@pytest.mark.parametrize("size", [(9, 11), (1, 4), (1, 1)])
def test_msca_matches_sums_of_shifted_copies(size):
    module = build(MSCA, 8)
    x = feature(8, size=size)
    u = one_by_one(module.enter[0], x)
    u = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
    near = depthwise(module.square.weight, module.square.bias, u)
    total = near
    for first, second in module.strips:
        strip = depthwise(first.weight, first.bias, near)
        total = total + depthwise(second.weight, second.bias, strip)
    y = one_by_one(module.mix, total) * u
    torch.testing.assert_close(module(x), x + module.project(y))
    assert [strip[0].weight.shape[3] for strip in module.strips] == [7, 11, 21]


def test_msca_sees_twelve_positions_on_each_side():
    module = build(MSCA, 8)
    x = feature(8, size=(33, 33)).requires_grad_()
    module(x)[0, :, 16, 16].sum().backward()
    inside = torch.zeros(33, 33, dtype=torch.bool)
    inside[4:29, 4:29] = True
    assert torch.equal(x.grad[0].any(dim=0), inside)


def test_msca_refuses_an_even_length():
    with pytest.raises(ValueError, match=r"lengths \(10\) must be odd .*; choose 11"):
        MSCA(8, lengths=(7, 10))


def factorised(y, bases, iterations):
    """Fit one image's map (width, N), entry by entry, and return its reconstruction."""
    width, n = y.shape
    bases = bases.clone()
    rank = bases.shape[1]
    codes = torch.stack([(y[:, i] @ bases).softmax(0) for i in range(n)])

    def new_codes():
        gram = bases.T @ bases
        return torch.tensor(
            [
                [
                    codes[i, r] * (y[:, i] @ bases[:, r]) / (codes[i] @ gram[:, r] + 1e-6)
                    for r in range(rank)
                ]
                for i in range(n)
            ]
        ).double()

    for _ in range(iterations):
        codes = new_codes()
        gram = codes.T @ codes
        bases = torch.tensor(
            [
                [
                    bases[c, r] * (y[c] @ codes[:, r]) / (bases[c] @ gram[:, r] + 1e-6)
                    for r in range(rank)
                ]
                for c in range(width)
            ]
        ).double()
    return bases @ new_codes().T


@pytest.mark.parametrize("size", [(3, 5), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_hamburger_matches_multiplicative_updates_entry_by_entry(size, training):
    module = build(Hamburger, 8, width=6, rank=3, iterations=2).train(training)
    module.project.eval()
    x = feature(8, size=size, scale=2.0)
    y = one_by_one(module.enter, x).relu().flatten(2).detach()
    images = [factorised(image, module.bases, 2 if training else 3) for image in y]
    y = torch.stack(images).unflatten(2, size)
    torch.testing.assert_close(module(x), (x + module.project(y)).relu())


def test_hamburger_reconstructs_a_map_of_low_rank():
    torch.manual_seed(0)
    y = torch.rand(2, 12, 2).double() @ torch.rand(2, 2, 40).double()
    module = build(Hamburger, 12, rank=2, iterations=200)
    bases, codes = module._factorise(y)
    assert (bases @ codes.mT - y).norm() < 0.05 * y.norm()  # 0.12 after 6


def test_hamburger_gradient_is_that_of_the_last_update():
    module = build(Hamburger, 8, width=6, rank=3).train()
    module.project.eval()
    x = feature(8, size=(3, 5)).requires_grad_()
    (actual,) = torch.autograd.grad(module(x).sum(), x)
    y = module.enter(x).relu().flatten(2)
    with torch.no_grad():
        bases, codes = module._factorise(y)
    gram = bases.mT @ bases
    codes = codes * (y.mT @ bases) / (codes @ gram + 1e-6)
    expected = (x + module.project((bases @ codes.mT).unflatten(2, (3, 5)))).relu()
    torch.testing.assert_close(actual, torch.autograd.grad(expected.sum(), x)[0])


def test_hamburger_starts_from_bases_of_the_seed_which_training_and_checkpoints_keep():
    first, second = (build(Hamburger, 8, rank=4) for _ in range(2))
    assert torch.equal(first.bases, second.bases)
    torch.manual_seed(1)
    other = Hamburger(8, rank=4).double().eval()
    assert not torch.equal(first.bases, other.bases)
    x = feature(8)
    before = first(x)
    first.train()(x)  # moves the running statistics alone
    assert torch.equal(first.bases, second.bases)
    other.load_state_dict(second.state_dict())
    assert torch.equal(other(x), before)
    assert torch.equal(other.train()(x), second.train()(x))  # no random number in training


def test_hamburger_is_finite_without_any_activation():
    module = Hamburger(8).train()
    torch.nn.init.constant_(module.enter.bias, -100.0)
    x = feature(8).float().requires_grad_()
    y = module(x)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_external_attention_matches_a_double_normalisation_by_loops(size, scale):
    module = build(ExternalAttention, 16, slots=5)
    x = feature(size=size, scale=scale)
    y = one_by_one(module.enter, x).flatten(2)
    attended = torch.zeros_like(y)
    keys, values = module.keys.weight[:, :, 0, 0], module.values.weight[:, :, 0, 0]
    for image in range(2):
        logits = keys @ y[image]  # (slots, N)
        shares = torch.stack([slot.exp() / slot.exp().sum() for slot in logits - logits.max()])
        for i in range(y.shape[2]):
            weights = shares[:, i] / shares[:, i].sum()
            attended[image, :, i] = values @ weights
    y = module.project(attended.unflatten(2, size))
    torch.testing.assert_close(module(x), (x + y).relu())


def test_external_attention_is_finite_where_a_position_loses_in_every_slot():
    module = ExternalAttention(16)
    x = feature(size=(2, 2)).float()
    x[..., 0, 0] *= 1e4
    x.requires_grad_()
    module(x).square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (1, 1)])
@pytest.mark.parametrize(("heads", "scales"), [(2, (3,)), (4, (3, 5))])
def test_relu_linear_attention_matches_the_quadratic_form(heads, scales, size):
    module = build(ReLULinearAttention, 16, heads, scales)
    x = feature(size=size)
    maps = [one_by_one(module.qkv, x)]
    for first, second in module.surroundings:
        around = depthwise(first.weight, torch.zeros(48).double(), maps[0])
        width = 16 // heads
        blocks = [
            torch.einsum("oc,bchw->bohw", second.weight[block, :, 0, 0], around[:, block])
            for block in (slice(g * width, (g + 1) * width) for g in range(3 * heads))
        ]
        maps.append(torch.cat(blocks, dim=1))
    attended = []
    for qkv in maps:
        q, k, v = (part.flatten(2).unflatten(1, (heads, -1)) for part in qkv.chunk(3, dim=1))
        similar = q.relu().mT @ k.relu()  # (B, heads, N, N)
        weights = similar / (similar.sum(3, keepdim=True) + 1e-6)
        attended.append((v @ weights.mT).flatten(1, 2).unflatten(2, size))
    torch.testing.assert_close(module(x), x + module.project(torch.cat(attended, dim=1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, r"channels \(16\) must be divisible by heads \(3\)"),
        ({"scales": (4,)}, r"scales \(4\) must be odd .*; choose 5"),
    ],
)
def test_relu_linear_attention_names_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ReLULinearAttention(16, **options)
